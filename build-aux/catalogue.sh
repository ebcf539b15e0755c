#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# catalogue.sh FILE.yaml...: the rows {"name", "text"}, of a C table that holds the files.
# Run by make: the program thereby carries its catalogue.
for file in "$@"; do
    name=${file##*/}
    echo "{\"${name%.yaml}\","
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/ "/' -e 's/$/\\n"/' "$file" || exit 1
    echo '},'
done
