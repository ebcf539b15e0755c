#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""TAP test: README.md shows what examples/quick.yaml prints.

Words are equal, numbers differ by at most 1: another machine's BLAS may turn a near-tie. What has
changed on purpose is put there by `make update-readme`.
"""
import os
import re
import subprocess
import sys
import tempfile

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def shown(path):
    """The lines between the marks, without the fence around them."""
    text = open(path, encoding="utf-8").read()
    made = text.split("`make update-readme`: begin -->")[1].split("<!-- made by")[0]
    return made.strip().strip("`").strip().splitlines()


def printed(source):
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ["KVSIM"], "run", os.path.join(source, "examples", "quick.yaml"), "-o",
                   os.path.join(folder, "quick.db")]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env={**os.environ, "COLUMNS": "80"}, universal_newlines=True).stdout
    return [line for line in out.strip().splitlines() if not line.startswith("Results")]


def words(line):
    """A line without its numbers; the blanks that line up columns do not count."""
    return " ".join(NUMBER.sub("#", line).split())


def differs(a, b):
    one, other = NUMBER.findall(a), NUMBER.findall(b)
    return words(a) != words(b) or any(abs(float(x) - float(y)) > 1 for x, y in zip(one, other))


def main():
    source = os.environ["srcdir"]
    readme, now = shown(os.path.join(source, "README.md")), printed(source)
    wrong = [(a, b) for a, b in zip(readme, now) if differs(a, b)]
    passed = len(readme) == len(now) > 10 and not wrong
    print("1..1\n%sok 1 - README.md shows what the sample prints" % ("" if passed else "not "))
    for a, b in wrong:
        print("# README:  %s\n# printed: %s" % (a, b))
    return 0


if __name__ == "__main__":
    sys.exit(main())
