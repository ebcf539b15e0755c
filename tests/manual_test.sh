#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Compares what the program says of itself with the documents: every command and option with the
# manual pages, both ways; every policy of the attention replay, parameter and preset with docs/policies.md; every
# document with what the README lists.
# Not checked: what the documents say about them.
set -u
files=$(mktemp -d) || exit 99
trap 'rm -rf "$files"' EXIT
man=$srcdir/docs/man
n=0

# same WHAT: passes if the lists $files/program and $files/document are equal.
same()
{
    n=$((n + 1))
    if cmp -s "$files/program" "$files/document" && [ -s "$files/program" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        comm -3 "$files/program" "$files/document" | sed 's/^\t/# only in the document: /; t; s/^/# only in the program: /'
    fi
}

# The names in column 1 of `kvsim list ...`.
names()
{
    "$KVSIM" list "$@" | awk '{ print $1 }'
}

attention_policies()
{
    "$KVSIM" list policies | awk '$2 !~ /^(replacement|reuse|load)$/ { print $1 }'
}

commands=$("$KVSIM" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')

echo "$commands" | sort > "$files/program"
sed -n 's/^\.It Cm //p' "$man/kvsim.1" | sort > "$files/document"
same 'kvsim(1) lists the commands'
(cd "$man" && echo kvsim-*.1) | tr ' ' '\n' | sed 's/kvsim-//; s/\.1$//' | sort > "$files/document"
same 'every command has a page'

for command in $commands; do
    "$KVSIM" "$command" --help | grep -oE '^ +(-[a-z], )?--[a-z-]+' | tr -d ' ' | sort > "$files/program"
    sed -n 's/^\.It Fl \([a-z]\) , Fl -\([a-z-]*\).*/-\1,--\2/p; s/^\.It Fl -\([a-z-]*\).*/--\1/p' \
        "$man/kvsim-$command.1" | sort > "$files/document"
    same "kvsim-$command(1) has its options"
done

policies=$srcdir/docs/policies.md
attention_policies | sort > "$files/program"
sed -n 's/^### `\([a-z0-9_]*\)`.*/\1/p' "$policies" | sort > "$files/document"
same 'docs/policies.md has a part for each policy'
for policy in $(attention_policies); do
    "$KVSIM" list policies "$policy" | sed -n '/^Parameters:/,/^$/s/^  \([a-z_][a-z_]*\) .*/\1/p'
done | sort -u > "$files/program"
sed -n 's/^| `\([a-z_]*\)` |.*/\1/p' "$policies" | sort -u > "$files/document"
same 'docs/policies.md explains each parameter'
for policy in $(attention_policies); do
    "$KVSIM" list policies "$policy" | sed -n "/^Presets/,\$s/^  \([a-z][a-z-]*\) .*/$policy \1/p"
done | sort > "$files/program"
awk '/^### `/ { gsub("`", "", $2); policy = $2 } /^- `preset: / { print policy, substr($3, 1, index($3, "`") - 1) }' \
    "$policies" | sort > "$files/document"
same 'docs/policies.md explains each preset'

(cd "$srcdir" && echo docs/*.md) | tr ' ' '\n' | sort > "$files/program"
grep -oE '\]\(docs/[a-z-]+\.md\)' "$srcdir/README.md" | sed 's/^](//; s/)$//' | sort -u > "$files/document"
same 'the README lists the documents'
echo "1..$n"
