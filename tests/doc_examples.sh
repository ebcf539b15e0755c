#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# Runs every command of the ```console blocks in README.md and docs and compares what it prints with what the page
# says. Not checked: whether the page explains it rightly.
set -u
pages='../README.md footprint.md models.md request-traces.md tutorial.md'
mkdir -p doc_examples.tmp && cd doc_examples.tmp || exit 1
trap 'cd .. && rm -rf doc_examples.tmp' EXIT
ln -sf "$KVSIM" kvsim
ln -sf "$srcdir/examples" examples
PATH=$PWD:$PATH
unset KVSIM_DATADIR
n=0

# check PAGE COMMAND WANTED
check()
{
    local got
    got=$(eval "$2" 2>&1)
    n=$((n + 1))
    if [ "$got" = "$3" ]; then
        echo "ok $n - $1: ${2:0:60}"
    else
        echo "not ok $n - $1: $2"
        diff <(printf '%s\n' "$3") <(printf '%s\n' "$got") | sed 's/^/# /'
    fi
}

for page in $pages; do
    inside='' command='' wanted=''
    while IFS= read -r line; do
        case $inside$line in
            '```console') inside=yes ;;
            yes'```' | yes'$ '*)
                [ -n "$command" ] && check "$page" "$command" "${wanted%$'\n'}"
                command='' wanted=''
                if [ "$line" = '```' ]; then inside=''; else command=${line#'$ '}; fi ;;
            yes*) wanted+=$line$'\n' ;;
        esac
    done < "$srcdir/docs/$page"
done
echo "1..$n"
[ "$n" -gt 8 ] || echo "not ok - examples were not found"
