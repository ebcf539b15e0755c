#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# lint.sh BUILD: checks the source, and what was built of it in the folder BUILD. Prints TAP.
# Runs in the root of a git checkout. Versions are those of Debian 12: clang-format 14 above all, as
# another one formats otherwise.
set -u
build=$1
words=$(mktemp)
trap 'rm -f "$words"' EXIT
n=0
failed=0

# check WHAT COMMAND...: passes if the command succeeds; prints its words if not.
check()
{
    local what=$1
    shift
    n=$((n + 1))
    if "$@" > "$words" 2>&1; then
        echo "ok $n - $what"
    else
        failed=1
        echo "not ok $n - $what"
        sed 's/^/# /' "$words"
    fi
}

# Succeeds if its input is empty; else it is the complaint.
nothing()
{
    ! grep .
}

sources()
{
    git ls-files '*.c' '*.h'
}

# Scripts by their first line, whatever their names.
scripts()
{
    git grep -lE '^#!/(bin/|usr/bin/env )(ba|da)?sh$'
}

formatted()
{
    sources | xargs clang-format-14 --dry-run -Werror
}

scripts_are_clean()
{
    scripts | xargs shellcheck
}

tidy()
{
    local flags
    flags=$(pkg-config --cflags gsl sqlite3 yaml-0.1 nettle hdf5-serial jansson libzstd zlib)
    flags="$flags $(pkg-config --cflags mpi-c 2>/dev/null)" # configure takes MPI where it is there
    # Tests are the target of the sanitizers instead; the AVX2 body needs flags of its own.
    git ls-files '*.c' ':!tests' ':!sim/base/kernels_avx2.c' |
        xargs -P "$(nproc)" -n 4 sh -c 'clang-tidy-14 --quiet "$@" -- '"$flags"' -std=gnu11 \
            -I. -Isim -I'"$build"' -DKV_DATADIR=\"\" 2>/dev/null' tidy |
        grep -E ': (warning|error): ' | nothing
}

manuals()
{
    git ls-files 'docs/man/*' | xargs -r mandoc -Tlint -W warning
}

# Every file of code names its licence near the top.
licensed()
{
    git ls-files '*.c' '*.h' '*.sh' '*.py' '*.am' '*.ac' '*.in' 'm4/kv_*' '.ci/*' 'docs/man/*' |
        xargs grep -L 'SPDX-License-Identifier: GPL-3.0-or-later' | nothing
}

# The library neither prints nor ends the process, and draws no numbers that a seed does not fix.
# h5_trial.o ends a child of its own, in which HDF5 may crash on a damaged file.
silent_library()
{
    nm -A --undefined-only "$build"/.libs/libkv*.a 2>/dev/null |
        awk '{ n = split($1, path, ":"); print path[n - 1] ": " $NF }' |
        grep -vxE '(libkvsim_la-|.*-)?h5_trial\.o: _exit' |
        grep -E ': (exit|_exit|abort|printf|vprintf|puts|putchar|perror|stderr|system|popen|s?rand|s?random|drand48|rand_r)$' |
        nothing
}

# No variable of the library outlives a call: .data and .bss hold none, but for the lock of HDF5, which
# is one per process, and the choice of kernels, made once.
no_globals()
{
    local archive
    for archive in "$build"/.libs/libkv*.a; do
        objdump -t "$archive" 2>/dev/null |
            awk 'NF >= 5 && ($(NF - 2) == ".bss" || $(NF - 2) == ".data" || $(NF - 2) == "*COM*") &&
                 $NF !~ /^\./ { print $NF }'
    done | grep -vxE 'lock|once\.0' | nothing
}

exports_are_public()
{
    nm -D --defined-only "$build/.libs/libkvsim.so" | awk '$3 !~ /^kv_[a-z]/' | nothing
}

short_functions()
{
    sources | ctags -L - -o - --languages=C --langmap=C:.c.h --kinds-C=f --fields=+ne --excmd=number |
        awk -F '\t' '{ line = end = 0
            for (i = 4; i <= NF; i++) {
                if ($i ~ /^line:/) line = substr($i, 6)
                if ($i ~ /^end:/) end = substr($i, 5)
            }
            if (end - line + 1 > 60) print $2 ": " $1 " has " end - line + 1 " lines" }' | nothing
}

short_files()
{
    { sources; scripts; git ls-files '*.py'; } | xargs wc -l | awk '$2 != "total" && $1 > 800' | nothing
}

# A header can be included by itself.
complete_headers()
{
    local header flags bad=0
    read -ra flags <<< "$(pkg-config --cflags hdf5-serial nettle)"
    for header in $(git ls-files '*.h' ':!*_body.h'); do
        echo "#include \"$header\"" |
            gcc -xc -fsyntax-only -I. -I"$build" "${flags[@]}" - || bad=1
    done
    return "$bad"
}

# What an installed header includes is installed as well.
installed_headers_are_closed()
{
    local headers header
    headers=$(sed -n '/^nobase_pkginclude_HEADERS/,/[^\\]$/p' Makefile.am | grep -oE '[a-z_/-]+\.h')
    for header in $headers sim/kvsim.h; do
        sed -n 's/^#include "\(.*\)"/\1/p' "$header" | grep -vxF "$headers" | sed "s,^,$header: ,"
    done | nothing
}

# Every link of a document to a file of the tree leads somewhere.
links_lead()
{
    local page link
    for page in $(git ls-files '*.md'); do
        grep -oE '\]\([^)#:]+[)#]' "$page" | sed 's/^](//; s/[)#]$//' | while read -r link; do
            [ -e "$(dirname "$page")/$link" ] || echo "$page: $link"
        done
    done | nothing
}

# What configure asks pkg-config for comes with the packages that quickstart.sh installs.
packages_suffice()
{
    local module file package
    grep -oE 'PKG_CHECK_MODULES\(\[[A-Z0-9]+\], \[[^]]+' configure.ac | sed 's/.*\[//; s/>= [0-9.]*//g' |
        tr -s ' ' '\n' | grep . | while read -r module; do
        file=$(find /usr/lib/*/pkgconfig /usr/share/pkgconfig -name "$module.pc" 2>/dev/null | head -1)
        [ -n "$file" ] || continue
        package=$(dpkg -S "$(readlink -f "$file")" 2>/dev/null | cut -d: -f1)
        [ -n "$package" ] || continue
        package=${package/-pthread/} # libopenblas-dev brings libopenblas-pthread-dev
        grep -qw "$package" quickstart.sh || echo "$module: $package is not in quickstart.sh"
    done | nothing
}

check 'C is formatted by clang-format 14' formatted
check 'clang-tidy has no complaint' tidy
check 'functions have at most 60 lines' short_functions
check 'files have at most 800 lines' short_files
check 'headers are complete' complete_headers
check 'what installed headers include is installed' installed_headers_are_closed
check 'shellcheck has no complaint' scripts_are_clean
check 'manual pages are clean mdoc' manuals
check 'files of code name their licence' licensed
check 'links of documents lead somewhere' links_lead
check 'the library neither prints nor exits' silent_library
check 'the library has no global variables' no_globals
check 'only public names are exported' exports_are_public
check 'quickstart.sh installs what configure asks for' packages_suffice
echo "1..$n"
exit $failed
