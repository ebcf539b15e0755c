#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# From a fresh Debian 12 (or later) to results, as root or with sudo:
#
#   ./quickstart.sh         installs what is missing, builds in build/, replays the recorded sample
#                           and says how small the KV cache can be
#   ./quickstart.sh check   the same set-up, then all tests
#
# Run it as often as you like: what is there already is not done again. Nothing is written outside
# this folder but the packages.
set -eu

build_packages='gcc libc6-dev make autoconf automake libtool pkgconf libgsl-dev libsqlite3-dev
    libyaml-dev libhdf5-dev nettle-dev libopenblas-dev libjansson-dev libzstd-dev zlib1g-dev
    gnuplot-nox'
check_packages='libcmocka-dev python3 python3-numpy python3-h5py python3-yaml python3-jsonschema
    bash mandoc'

usage() {
    echo "Usage: ./quickstart.sh [check]"
    echo "Builds kvsim in build/ and replays the recorded sample; check: runs the tests instead."
}

# Whether build/ was configured here (not moved or copied from elsewhere) and for what is installed now.
is_configured() {
    grep -qsxF "abs_top_builddir = $root/build" build/Makefile &&
        [ -z "$(find /var/lib/dpkg/status -newer build/config.status)" ]
}

# configure is made once. When its sources change, make remakes it by itself.
build() {
    [ -x configure ] || autoreconf -fi
    mkdir -p build
    is_configured || (cd build && ../configure -q)
    make -s -C build -j "$(nproc)"
}

sample() {
    out=build/quickstart
    mkdir -p "$out"
    rm -f "$out"/quick.db*
    build/kvsim run examples/quick.yaml -o "$out/quick.db"
    build/kvsim report "$out/quick.db" -o "$out/report.html"
    echo "Report:  $out/report.html (open it in a browser)"
    echo "Program: build/kvsim (export PATH=\"$root/build:\$PATH\" finds it)"
    echo "README.md tells how to read the table and how to record your own attention."
}

root=$(cd "$(dirname "$0")" && pwd -P)
cd "$root"
case ${1-} in
'') packages=$build_packages ;;
check) packages="$build_packages $check_packages" ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
# The list has to be split into its words.
# shellcheck disable=SC2086
build-aux/packages.sh $packages
build
if [ "${1-}" = check ]; then
    make -s -C build -j "$(nproc)" check VERBOSE=1
    echo "kvsim: all tests passed"
else
    sample
fi
