#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
# embed.sh FILE: the text of a file as a C string, one literal per line.
# Run by make: style and script of the report are files of their own and part of the program.
sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$1"
