#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Checks what the bash completion offers: commands, options, kinds, policies, files by ending.
set -u
. "$srcdir/sim/completions/kvsim"
files=$(mktemp -d) || exit 1
trap 'rm -rf "$files"' EXIT
touch "$files/a.yaml" "$files/b.db" "$files/c.txt"
mkdir "$files/folder"
cd "$files" || exit 1
n=0

# complete_line WORD...: what is offered for the last word, sorted, on one line.
complete_line()
{
    COMP_WORDS=("$KVSIM" "$@")
    COMP_CWORD=$#
    _kvsim
    printf '%s\n' "${COMPREPLY[@]}" | LC_ALL=C sort | paste -sd ' '
}

# offers WHAT WANTED WORD...
offers()
{
    local what=$1 wanted=$2 got
    shift 2
    got=$(complete_line "$@")
    n=$((n + 1))
    if [ "$got" = "$wanted" ]; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        echo "# offered '$got', expected '$wanted'"
    fi
}

echo 1..14
offers 'a command' 'list' li
offers 'a global option' '--version' --v
offers 'no unknown command' '' zzz
offers 'long and short options of a command' '--help --json -h -j' list -
offers 'one option' '--json' list --j
offers 'a kind' 'policies' list pol
offers 'policies by name' 'full' list policies ful
offers 'policies for the calculator' 'full' footprint ful
offers 'models for the calculator' 'llama-3.1-8b' footprint --model llama-3.1-8
offers 'experiments and results to run, and folders' 'a.yaml b.db folder' run ''
offers 'results to report' 'b.db folder' report ''
offers 'results to plot' 'b.db folder' plot ''
offers 'a kind of plot' 'chunk curve' plot b.db c
offers 'any file else' 'a.yaml b.db c.txt folder' trace info ''
