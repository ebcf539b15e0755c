#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# packages.sh PACKAGE...: installs those of the Debian packages that are missing; does nothing, and
# needs neither root nor network, if none is.
set -eu

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

for tool in dpkg-query apt-get; do
    if ! command -v "$tool" >/dev/null; then
        echo "kvsim: $tool was not found: this script installs packages of Debian 12 or later." >&2
        echo "kvsim: on another system install what README.md lists and build by hand." >&2
        exit 1
    fi
done

missing=
for package in "$@"; do
    is_installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "kvsim: these packages are missing, and neither root nor sudo is there to install them:" >&2
    echo "   $missing" >&2
    echo "kvsim: as root, run: apt-get install$missing" >&2
    exit 1
fi

echo "kvsim: installing$missing"
# Another apt-get may be at work: wait for it up to five minutes.
as_root apt-get -q -o DPkg::Lock::Timeout=300 update
# The list has to be split into its words.
# shellcheck disable=SC2086
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends $missing
