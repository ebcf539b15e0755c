# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# For test scripts that print TAP; source it. $files is a folder that goes away in the end, $n counts
# tests.
set -u
files=$(mktemp -d) || exit 1
trap 'rm -rf "$files"' EXIT
n=0

# check WHAT COMMAND...: passes if the command does.
check()
{
    local what=$1
    shift
    n=$((n + 1))
    if "$@" > "$files/words" 2>&1; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        sed 's/^/# /' "$files/words"
    fi
}

# skip_to N WHY: passes over the tests up to number N.
skip_to()
{
    while [ $n -lt "$1" ]; do
        n=$((n + 1))
        echo "ok $n # SKIP $2"
    done
}

# fails STATUS WORDS COMMAND...: the command ends with that status and says the words.
fails()
{
    local status=$1 words=$2 got
    shift 2
    "$@" > /dev/null 2> "$files/stderr"
    got=$?
    cat "$files/stderr"
    [ "$got" = "$status" ] && grep -qF -- "$words" "$files/stderr"
}
