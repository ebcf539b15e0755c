#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# registry.sh MACRO FILE...: one line "MACRO(name)" per source file, for the table that lists them
# (a dash in the name of a file becomes an underscore).
# Run by make: the list of files in a *.am fragment is thereby the only list of plug-ins.
macro=$1
shift
for file in "$@"; do
    name=${file##*/}
    echo "$macro(${name%.c})"
done | tr '-' '_'
