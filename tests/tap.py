# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""What Python tests have in common: lines of TAP, and kvsim and its results as a user has them.

Lies beside the tests, so that they import it wherever they are built."""
import os
import sqlite3
import subprocess
import sys

KVSIM = os.environ["KVSIM"]
_passed = []


def check(name, good, why=""):
    """One test; `why` is printed if it fails."""
    _passed.append(bool(good))
    print("%sok %d - %s" % ("" if good else "not ", len(_passed), name))
    if not good:
        print("# " + str(why).strip().replace("\n", "\n# "))


def finish():
    """Prints the plan and ends the test."""
    print("1..%d" % len(_passed))
    sys.exit(0 if all(_passed) else 1)


def kvsim(*arguments, **settings):
    """What became of `kvsim ARGUMENTS`; settings are those of subprocess.run."""
    return subprocess.run([KVSIM, *arguments],
                          **{"capture_output": True, "text": True, "timeout": 300, **settings})


def rows(path, query, *values):
    """The rows of a query on a file of results, each a dict."""
    with sqlite3.connect(path) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query, values)]


def write(folder, name, text):
    """Writes a file, in a folder that is made if need be; answers its path."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path
