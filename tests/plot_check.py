# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Checks of plots, for plot_test.sh: plot_check.py WHAT FILE...

Numbers come from the script that kvsim hands to gnuplot, and are compared with what Python counts in
the database itself."""
import json
import re
import sqlite3
import struct
import sys
import xml.etree.ElementTree as tree

NAME = ("x'\" <img src=x onerror=alert(1)> </script>&amp; `touch pwned` $(touch pwned) \\ \x01\n"
        "system 'touch pwned' ]]> @a {/*2 b}")


def blocks(path):
    """Data blocks of a script, by name: lists of rows of numbers."""
    found, name = {}, None
    for line in open(path, encoding="utf-8"):
        start = re.match(r"(\$\w+) << EOD$", line)
        if start:
            name = start.group(1)
            found[name] = []
        elif line == "EOD\n":
            name = None
        elif name:
            found[name].append([float(x) for x in line.split()])
    return found


def near(got, want, tolerance=1e-5):
    assert abs(got - want) <= tolerance * max(1, abs(want)), (got, want)


def query(database, sql, *values):
    return sqlite3.connect(database).execute(sql, values).fetchall()


def latency(script, database):
    """The last panel's lines: every row says how many requests took at most so long."""
    points = query(database, "SELECT id FROM serving_point ORDER BY number")
    data = blocks(script)
    for i, (point,) in enumerate(points):
        times = [t for t, in query(database, "SELECT e2e_s FROM request_result WHERE point_id = ? "
                                   "AND e2e_s IS NOT NULL", point)]
        rows = data[f"$d{i}"]
        assert len(rows) > 100
        near(rows[0][0], min(times))
        near(rows[-1][0], max(times))
        near(rows[-1][1], 100)
        for value, percent in rows:
            under = sum(t <= value * (1 + 1e-9) for t in times)
            strictly = sum(t < value * (1 - 1e-9) for t in times)
            assert strictly < percent * len(times) / 100 + 1e-6 <= under + 1e-3, (value, percent)


def timeline(script, database):
    data = blocks(script)
    rows = query(database, "SELECT time_s, used_bytes, running, waiting FROM timeline WHERE point_id "
                 "= (SELECT id FROM serving_point WHERE number = 2) ORDER BY time_s")
    assert len(rows) == len(data["$m0"]) == len(data["$r0"]) > 10
    for memory, requests, row in zip(data["$m0"], data["$r0"], rows):
        near(memory[0], row[0])
        near(memory[1], row[1])
        assert requests[1:] == [row[2], row[3]]


def sets(database, point):
    return query(database, "SELECT example, layer, kv_head, positions FROM retained_set WHERE "
                 "point_id = ?", point)


def first_points(database, without=""):
    """By hand what kvsim says it shows: of each policy but one the smallest chunk size and, of its points,
    the budget (or footprint) nearest to 0.5, of the first task."""
    best = {}
    for point, task, curve, policy, chunk, keep in query(
            database, "SELECT id, task, curve, policy, chunk_size, coalesce(keep, kv_footprint) FROM "
            "footprint_point WHERE turn IS NULL AND policy <> 'full' ORDER BY id"):
        if task == "kv_multiturn" and chunk == 32 and policy != without:
            key = (policy, curve)
            if key not in best or abs(keep - 0.5) < abs(best[key][1] - 0.5):
                best[key] = (point, keep)
    return [point for point, _ in best.values()]


def length(database, example):
    return 1 + max(max(json.loads(p)) for p, in query(
        database, "SELECT positions FROM retained_set WHERE example = ?", example) if p != "[]")


def heads(script, database):
    data = blocks(script)
    points = first_points(database)
    assert len(points) == 8 and sorted(data) == [f"$h{i}" for i in range(8)]  # 6 and 2 oracles
    drawn = sorted(tuple(row[4] for row in data[f"$h{i}"]) for i in range(8))
    wanted = []
    for point in points:
        share = {}
        for example, layer, head, positions in sets(database, point):
            share.setdefault((layer, head), []).append(
                len(json.loads(positions)) / length(database, example))
        wanted.append(tuple(100 * sum(s) / len(s) for _, s in sorted(share.items())))
    for got, want in zip(drawn, sorted(wanted)):
        for a, b in zip(got, want, strict=True):
            near(a, b)


def retained(script, database):
    """At one position per column the boxes are the sets themselves."""
    data = blocks(script)
    drawn = sorted(str(sorted(int(row[2] + 0.5) * 10000 + x for row in data[f"$s{i}"][1:]
                              for x in range(int(row[0]), int(row[1])))) for i in range(6))
    example = query(database, "SELECT min(example) FROM retained_set JOIN footprint_point ON id = "
                    "point_id WHERE task = 'kv_multiturn'")[0][0]
    wanted = sorted(str(sorted((layer * 4 + head) * 10000 + x for name, layer, head, positions in
                               sets(database, point) if name == example
                               for x in json.loads(positions)))
                    for point in first_points(database, "topk"))
    assert drawn == wanted


def along_bytes(script, database):
    """The points of each series stand at their bytes."""
    data = blocks(script)
    drawn = sorted((round(row[0], 6), round(row[1], 6)) for name, rows in data.items()
                   if name[1] == "c" for row in rows)
    wanted = sorted((round(100 * x, 6), round(y, 6)) for x, y in query(
        database, "SELECT kv_footprint_bytes, accuracy FROM footprint_point WHERE turn IS NULL AND "
        "policy = 'h2o+kivi' AND task = 'kv_recall'"))
    assert drawn == wanted and len(drawn) == 3, (drawn, wanted)


def critical(script, database):
    """Every critical footprint of the last task is drawn once, at its chunk size; of what always reaches the
    target the least footprint tried."""
    data = blocks(script)
    drawn = sorted((round(row[0]), round(row[1], 4)) for name, rows in data.items()
                   if name[1] == "d" for row in rows if row[1] == row[1])
    chunks = {32: 0, 128: 1, None: 2}
    wanted = sorted((chunks[c], round(100 * f, 4)) for c, f in query(
        database, "SELECT chunk_size, coalesce(kv_footprint, (SELECT min(p.kv_footprint) FROM footprint_point p "
        "WHERE p.curve = c.params AND p.policy = c.policy AND p.chunk_size IS c.chunk_size AND p.turn IS NULL AND "
        "p.task = c.task)) FROM critical_footprint c WHERE turn IS NULL AND policy <> 'full' AND status IN "
        "('ok', 'always') AND task = 'kv_recall'"))
    assert drawn == wanted and len(drawn) > 5, (drawn, wanted)
    crosses = sum(len(rows) - 1 for name, rows in data.items() if name[1] == "n")
    assert crosses == query(database, "SELECT count(*) FROM critical_footprint WHERE turn IS NULL AND "
                            "status = 'never' AND task = 'kv_recall'")[0][0]


def turns(script, database):
    data = blocks(script)
    drawn = sorted((round(row[0]), round(row[1], 4)) for name, rows in data.items()
                   if name[1] == "d" for row in rows if row[1] == row[1])
    wanted = sorted((t, round(100 * f, 4)) for t, f in query(
        database, "SELECT turn, coalesce(kv_footprint, (SELECT min(p.kv_footprint) FROM footprint_point p "
        "WHERE p.curve = c.params AND p.policy = c.policy AND p.chunk_size = 128 AND p.turn = c.turn AND "
        "p.task = c.task)) FROM critical_footprint c WHERE chunk_size = 128 AND policy <> 'full' AND "
        "status IN ('ok', 'always') AND turn IS NOT NULL AND task = 'kv_multiturn'"))
    assert drawn == wanted and len(drawn) > 10, (drawn, wanted)
    # A turn that never reaches the target breaks the line: it is a row without a value, in its place.
    missing = query(database, "SELECT count(*) FROM critical_footprint WHERE chunk_size = 128 AND policy <> "
                    "'full' AND status = 'never' AND turn IS NOT NULL AND task = 'kv_multiturn'")[0][0]
    broken = [row for name, rows in data.items() if name[1] == "d" for row in rows[1:] if row[1] != row[1]]
    assert len(broken) == missing > 0, (broken, missing)
    for name, rows in data.items():
        if name[1] == "d":
            assert [round(row[0]) for row in rows[1:]] == [1, 2, 3, 4, 5], rows


def pareto(script, database):
    """The last panel: cost against accuracy of every point at the trace's rate; ringed is the front."""
    data = blocks(script)
    drawn = sorted(tuple(row) for name, rows in data.items() if name[1] == "d" for row in rows[1:])
    sql = ("SELECT cost_per_hour, 100 * accuracy_of_full FROM plan_point WHERE rate_factor = 1 AND "
           "blocks_factor = 1")
    def rounded(rows):  # 3 * 1.1 is not 3.3
        return sorted(tuple(round(value, 8) for value in row) for row in rows)

    assert len(drawn) > 6 and rounded(drawn) == rounded(query(database, sql))
    assert rounded(data["$f"][1:]) == rounded(query(database, sql + " AND pareto"))
    answer = query(database, "SELECT cost_per_hour FROM plan_choice WHERE rank = 1")[0][0]
    near(data["$a"][1][0], answer)


def advances(path):
    """Widths of characters over the size of the font, out of a TrueType file: head, hhea, hmtx, cmap."""
    data = open(path, "rb").read()

    def at(form, place):
        return struct.unpack_from(">" + form, data, place)

    table = {}
    for i in range(at("H", 4)[0]):
        tag, _, offset, _ = at("4sIII", 12 + 16 * i)
        table[tag] = offset
    em, count = at("H", table[b"head"] + 18)[0], at("H", table[b"hhea"] + 34)[0]
    widths, base = {}, table[b"cmap"]
    start = next(base + o for p, e, o in (at("HHI", base + 4 + 8 * i) for i in range(at("H", base + 2)[0]))
                 if (p, e) == (3, 1))
    assert at("H", start) == (4,)
    segments = at("H", start + 6)[0] // 2
    for k in range(segments):
        last = at("H", start + 14 + 2 * k)[0]
        first, delta, reach = (at("H", start + 16 + 2 * (n * segments + k))[0] for n in (1, 2, 3))
        for code in range(first, min(last, 0x2fff) + 1):
            glyph = (code + delta if reach == 0 else at("H", start + 16 + 2 * (3 * segments + k) + reach +
                                                        2 * (code - first))[0]) & 0xffff
            widths[code] = at("H", table[b"hmtx"] + 4 * min(glyph, count - 1))[0] / em
    return widths


def texts_of(path, widths):
    """Every text of a picture: left, top, right, bottom, itself. Letters stand 0.75 of the size above
    their line and 0.2 below it."""
    found = []
    for group in tree.parse(path).iter("{http://www.w3.org/2000/svg}g"):
        words = "".join("".join(text.itertext()) for text in
                        group.findall("{http://www.w3.org/2000/svg}text")).strip()
        place = re.match(r"translate\(([-\d.]+),([-\d.]+)\)( rotate\((?:-90|270))?", group.get("transform", ""))
        if not words or not place:
            continue
        x, y, size = float(place[1]), float(place[2]), float(group.get("font-size"))
        width = size * sum(widths.get(ord(c), 0.6) for c in words)
        left = {"start": 0, "middle": -width / 2, "end": -width}[group.get("text-anchor")]
        box = ((x + left, y - 0.75 * size, x + left + width, y + 0.2 * size) if not place[3] else
               (x - 0.75 * size, y - left - width, x + 0.2 * size, y - left))
        found.append((*box, words))
    return found


def apart(font, *pictures):
    """No text of a picture meets another or leaves it."""
    widths = advances(font)
    for path in pictures:
        width, height = map(float, tree.parse(path).getroot().get("viewBox").split()[2:])
        texts, bad = texts_of(path, widths), []
        assert len(texts) > 8, (path, texts)
        for i, (left, top, right, bottom, words) in enumerate(texts):
            if left < 0 or top < 0 or right > width or bottom > height:
                bad.append((path, words, "outside", round(left), round(top), round(right), round(bottom)))
            bad += [(path, words, other[4]) for other in texts[:i] if left < other[2] and other[0] < right
                    and top < other[3] and other[1] < bottom]
        assert not bad, bad


def tiers(database):
    """Gives the serving points a second level of memory with a timeline, ten times as large."""
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO timeline SELECT point_id, time_s, 'cpu', 10 * used_bytes, running, "
                       "waiting FROM timeline WHERE tier = 'gpu'")
    connection.execute("INSERT INTO tier_stat SELECT point_id, 'cpu', 10 * capacity_bytes, 10 * peak_bytes, "
                       "mean_bytes, bytes_in, bytes_out, hits, blended_tokens, evictions, busy_s FROM tier_stat WHERE tier = "
                       "'gpu'")
    connection.commit()


def tiered(script, database):
    """Every tier has its block, and its capacity a line."""
    data = blocks(script)
    for number, tier in enumerate(("gpu", "cpu")):
        rows = query(database, "SELECT time_s, used_bytes FROM timeline WHERE tier = ? AND point_id = "
                     "(SELECT id FROM serving_point WHERE number = 2) ORDER BY time_s", tier)
        assert len(rows) == len(data[f"$m{number}"]) > 10
        for drawn, row in zip(data[f"$m{number}"], rows):
            near(drawn[0], row[0])
            near(drawn[1], row[1])
    drawn = [float(x) for x in re.findall(r"plot \$m\d.*, ([\d.]+) with lines", open(script).read())]
    wanted = [c / 2**30 for c, in query(
        database, "SELECT capacity_bytes FROM tier_stat WHERE point_id = (SELECT id FROM serving_point "
        "WHERE number = 2) ORDER BY tier DESC")]
    assert len(drawn) == len(wanted) == 2
    for a, b in zip(drawn, wanted):
        near(a, b)


def poison(database):
    """Puts a hostile name wherever a name can stand."""
    connection = sqlite3.connect(database)
    for table, column in [("run", "name"), ("footprint_point", "task"), ("footprint_point", "label"),
                          ("example", "task"), ("critical_footprint", "task"),
                          ("critical_footprint", "label"), ("retained_set", "example"),
                          ("timeline", "tier"), ("plan_choice", "label"), ("plan_choice", "device")]:
        connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ? || {column}", (NAME,))
    for point, settings in connection.execute("SELECT id, settings FROM serving_point").fetchall():
        settings = json.loads(settings)
        settings["device"] = NAME + str(point)
        connection.execute("UPDATE serving_point SET settings = ? WHERE id = ?",
                           (json.dumps(settings), point))
    connection.commit()


def markup(path):
    """An element or attribute that came from a name would be among these."""
    names, texts = set(), []
    for element in tree.parse(path).iter():
        names.add(element.tag.split("}")[1])
        assert not any(name.startswith("on") for name in element.attrib), element.attrib
        texts.append(element.text or "")
    assert not names & {"img", "script", "a", "image", "foreignObject"}, names
    assert any("<img src=x onerror" in text for text in texts), "the name is not shown"


globals()[sys.argv[1]](*sys.argv[2:])
