# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Checks of a report page and of exported tables, for report_test.sh: report_check.py WHAT FILE..."""
import collections
import csv
import hashlib
import html.parser
import json
import math
import re
import sqlite3
import sys

TAGS = set("""html head meta title style body header main section h1 h2 h3 p strong em small ul li div
    span button figure svg g path use rect circle defs filter feflood fecomposite text tspan polygon
    polyline desc
    table thead tbody tr th td details summary dl dt dd pre code script""".split())
VOID = {"meta", "use", "rect", "circle", "path", "feflood", "fecomposite", "polygon", "polyline"}


class Page(html.parser.HTMLParser):
    """Collects what the checks look at."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.series = collections.Counter(), collections.Counter(), set()
        self.open, self.text, self.cells = [], "", 0
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS, f"unexpected element {tag}"
        self.tags[tag] += 1
        for name, value in attributes:
            assert not name.startswith("on"), f"handler {name}"
            assert name not in ("src", "action", "formaction", "background"), name
            if name in ("href", "xlink:href"):
                assert re.fullmatch(r"#kv\d+_(point\d+|dot)", value), value
            if name == "id":
                self.ids[value] += 1
            if name == "data-series":
                self.series.add((tag, value))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def page(path):
    """Well nested, self-contained, every id once, every series of the legend drawn."""
    text = open(path, encoding="utf-8").read()
    found = Page(text)
    assert not [name for name, times in found.ids.items() if times > 1], found.ids
    for url in re.findall(r"https?://[^\s\"'<>]*|url\([^)]*\)|@import", text):
        assert url.startswith("http://www.w3.org/"), f"loads {url}"
    for word in ("Critical footprints", "Accuracy is a proxy", "Where this comes from", "SHA-256"):
        assert word in found.text, f"no '{word}'"
    return found


def curves(path):
    found = page(path)
    buttons = {value for tag, value in found.series if tag == "button"}
    drawn = {value for tag, value in found.series if tag == "g"}
    assert buttons and buttons == drawn, (buttons, drawn)
    assert found.tags["figure"] == 4 and found.tags["svg"] > 4


def spots(path):
    """What shows up under the pointer lies on the points that gnuplot drew: a circle of ours at every
    place of a gnuplot point of the same series, within half a pixel."""
    text = open(path, encoding="utf-8").read()
    for figure in re.findall(r"<figure>.*?</figure>", text, re.S):
        ours, theirs = collections.defaultdict(list), collections.defaultdict(list)
        for series, x, y in re.findall(r'class="spot" data-series="(\d+)" cx="([\d.]+)" cy="([\d.]+)"', figure):
            ours[series].append((float(x), float(y)))
        for series, body in re.findall(r'<g data-series="(\d+)">(.*?)(?=<g data-series|<circle class="spot")', figure, re.S):
            if "<path" not in body:  # the ring of the critical footprint
                continue
            for x, y in re.findall(r"translate\(([\d.]+),([\d.]+)\) scale", body):
                theirs[series].append((float(x), float(y)))
        assert ours
        for series, places in ours.items():
            for x, y in places:
                near = [1 for a, b in theirs[series] if abs(a - x) < 0.5 and abs(b - y) < 0.5]
                assert near, (series, x, y, theirs[series])


def hostile(path):
    found = page(path)
    assert "<img src=x onerror=alert(1)> </script>" in found.text, "the name is not shown"
    assert found.tags["script"] == 1


def no_curves(path):
    found = page(path)
    assert "No curves: gnuplot was not found" in found.text and found.tags["figure"] == 0


def add_calibration(database):
    """Puts a warning and an error of the accuracy model into a database."""
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO warning VALUES (1, 0, 'odd <b>points</b>')")
    connection.execute(
        "INSERT INTO calibration (run_id, task, fit, points, policies, examples, full_accuracy, "
        "full_measured, held_out_mae, critical_curves, critical_differ) "
        "VALUES (1, 'kv_recall', 'own', 77, 6, 16, 0.9, 1, 0.03125, 0, 0)")
    connection.commit()


def calibrated(path):
    found = page(path)
    for word in ("odd <b>points</b>", "How far to trust the accuracy", "3.1 %"):
        assert word in found.text, f"no '{word}'"


def rows_of(database, table):
    connection = sqlite3.connect(database)
    cursor = connection.execute(f"SELECT * FROM {table}")
    return [column[0] for column in cursor.description], cursor.fetchall()


def exported_csv(path, database, table):
    """The CSV holds the table to the last bit."""
    names, rows = rows_of(database, table)
    lines = list(csv.reader(open(path, encoding="utf-8", newline="")))
    assert lines[0] == names and len(lines) == len(rows) + 1 and rows
    for line, row in zip(lines[1:], rows):
        for got, want in zip(line, row):
            if want is None:
                assert got == ""
            elif isinstance(want, str):
                assert got == want, (got, want)
            else:
                assert float(got) == want, (got, want)


def exported_json(path, database, table):
    names, rows = rows_of(database, table)
    objects = json.load(open(path, encoding="utf-8"))
    assert rows and objects == [dict(zip(names, row)) for row in rows]


def served(path, database, trace):
    """Answer first, then serving with its timelines; spots say what the database says; the request
    trace is named by its SHA-256."""
    text = open(path, encoding="utf-8").read()
    found = Page(text)
    assert not [name for name, times in found.ids.items() if times > 1], found.ids
    places = [text.index(f'<section id="{name}">') for name in
              ("answer", "front", "serving", "timelines", "provenance")]
    assert places == sorted(places)
    label, devices = sqlite3.connect(database).execute(
        "SELECT label, devices FROM plan_choice WHERE rank = 1").fetchone()
    assert label in found.text and f"{devices} device" in found.text
    front = text[text.index("<h3>Front"):text.index("<h3>Configurations")]
    labels = [html.escape(label) for label, in sqlite3.connect(database).execute(
        "SELECT c.label FROM plan_point p JOIN plan_choice c ON c.id = choice_id WHERE pareto")]
    assert front.count("<tr>") == len(labels) + 1 > 2 and all(f">{name}<" in front for name in labels), front
    digest = hashlib.sha256(open(trace, "rb").read()).hexdigest()
    assert digest in found.text, "no hash of the requests"
    spots = re.findall(r'<circle class="spot" data-series="(\d+)" cx="([\d.]+)" cy="([\d.]+)" r="6">'
                       r"<title>([^<]*)</title>", text)
    samples = sqlite3.connect(database).execute(
        "SELECT time_s, running, used_bytes FROM timeline ORDER BY point_id, time_s").fetchall()
    running = [title for series, _, _, title in spots if series == "1005"]
    assert running == ["running\n%.4g requests at %.4g s" % (r, t) for t, r, _ in samples]
    memory = [(float(y), title) for series, _, y, title in spots if series == "1000"]
    assert [title for _, title in memory] == ["gpu\n%.4g GiB at %.4g s" % (u / 2**30, t)
                                              for t, _, u in samples]
    first = samples[:len(samples) // 4]
    most = max(u for _, _, u in first)
    for (y, _), (_, _, used) in zip(memory, first):  # 10 is the top, 174 high, 5 % above the most
        assert abs(y - (10 + 174 * (1 - used / most / 1.05))) < 0.06, (y, used)


def front(path, database):
    """The points of a plan by cost: what its table has at the trace's rate and blocks, but for latencies
    above four times what is asked for or the worst of what each configuration comes down to."""
    text = open(path, encoding="utf-8").read()
    part = text[text.index('<section id="front">'):text.index('<section id="serving">')]
    connection = sqlite3.connect(database)
    limits = dict(connection.execute("SELECT metric, value FROM plan_limit"))
    for chart, (column, unit, name) in zip(part.split("<figure>")[1:], (
            ("ttft_p99", 1, "s"), ("tpot_p99", 1e3, "ms"), ("accuracy_of_full", 100, "%"))):
        points = connection.execute(
            f"SELECT label, p.cost_per_hour, p.{column} FROM plan_point p JOIN plan_choice c ON c.id = choice_id "
            "WHERE rate_factor = 1 AND blocks_factor = 1").fetchall()
        least = [min(y for label, _, y in points if label == one) for one in {p[0] for p in points}]
        top = 4 * max(least + [limits.get(column, 0)]) if column != "accuracy_of_full" else 1
        wanted = sorted("%s\n%.4g %s at %.4g per hour" % (label, unit * y, name, x)
                        for label, x, y in points if y <= top)
        found = sorted(html.unescape(t) for t in re.findall(r"<title>([^<]*)</title>", chart)
                       if not t.startswith("limit"))
        assert found == wanted and len(found) > 5, (column, found, wanted)
        assert chart.count(' r="3"') == len(found) + 2 * ("limit\n" in chart), chart


def savings(path, database):
    """What saves bytes or reads beside entries, in shares of the full cache."""
    text = open(path, encoding="utf-8").read()
    table = text[text.index('<table id="savings-table">'):]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row)
            for row in table[:table.index("</table>")].split("<tr>")[2:]]
    share = lambda x: "" if x is None else "%.1f %%" % (100 * x)
    wanted = sorted([r[0], "%.3f" % r[1]] + [share(x) for x in r[2:]] for r in sqlite3.connect(database).execute(
        "SELECT task, accuracy, kv_footprint, kv_footprint_bytes, kv_reads, kv_reads_prefill FROM footprint_point "
        "WHERE turn IS NULL AND policy GLOB '*quest*'"))
    found = sorted([r[0], *r[2:]] for r in rows)
    assert len(wanted) > 3 and all(w in found for w in wanted), (wanted, found)


def latencies(path, database):
    """A spot says which share of the requests has at most its latency; it lies where both say."""
    text = open(path, encoding="utf-8").read()
    part = text[text.index('<section id="latency">'):text.index('<section id="timelines">')]
    charts = part.split("<figure>")[1:]
    columns = [("ttft_s", 1), ("tpot_s", 1e3), ("e2e_s", 1)]
    points = [point for point, in sqlite3.connect(database).execute(
        "SELECT id FROM serving_point ORDER BY number")]
    assert len(charts) == 3 and len(points) == 4
    for chart, (column, scale) in zip(charts, columns):
        spots = re.findall(r'<circle class="spot" data-series="(\d+)" cx="([\d.]+)" cy="([\d.]+)" r="6">'
                           r"<title>[^<]*\n([\d.e+-]+) % at ([\d.e+-]+) m?s</title>", chart)
        assert {series for series, *_ in spots} == {str(2000 + i) for i in range(4)}, spots
        places = []
        for series, x, y, share, value in spots:
            all_of = [scale * v for v, in sqlite3.connect(database).execute(
                f"SELECT {column} FROM request_result WHERE point_id = ? AND {column} IS NOT NULL",
                (points[int(series) - 2000],))]
            value, share = float(value), float(share) / 100 * len(all_of)
            assert sum(v < value * 0.999 for v in all_of) <= share + 1, (series, value, share)
            assert sum(v <= value * 1.001 for v in all_of) >= share - 1, (series, value, share)
            assert abs(float(y) - (10 + 174 * (1 - share / len(all_of)))) < 0.2, (y, share)
            places.append((math.log(value), float(x)))
        (a, left), (b, right) = min(places), max(places)
        for log, x in places:  # the axis is logarithmic
            assert abs(left + (right - left) * (log - a) / (b - a) - x) < 1, (log, x)


def join(plan, serving):
    """Puts the serving points and timelines of one database into the run of another."""
    connection = sqlite3.connect(plan)
    connection.execute("ATTACH ? AS other", (serving,))
    for table in ("serving_point", "tier_stat", "timeline", "request_result"):
        connection.execute(f"INSERT INTO {table} SELECT * FROM other.{table}")
    connection.commit()


def poisoned(path):
    """Every name of the database is hostile, and text on the page."""
    found = Page(open(path, encoding="utf-8").read())
    assert found.tags["script"] == 1 and found.tags["img"] == 0
    assert found.text.count("<img src=x onerror=alert(1)>") > 10


def pressed(path):
    found = re.search(r'<p id="result">(.*?)</p>', open(path, encoding="utf-8").read())
    assert found, "the page's own script did not run"
    facts = dict(part.split("=") for part in found.group(1).split("|"))
    assert int(facts["before"]) > 8 and facts["hidden"] == "0 false", facts
    assert facts["again"] == facts["before"] and facts["others"] == facts["kept"], facts
    up = [float(x) for x in facts["up"].split()]
    assert len(up) > 3 and up == sorted(up) and facts["keyboard"] == "true", facts
    assert float(facts["wide"]) <= 1, facts


def result(path):
    """What the script that report_test.sh adds found out in a browser."""
    text = open(path, encoding="utf-8").read()
    found = re.search(r'<p id="result">(.*?)</p>', text)
    assert found, "the page's own script did not run"
    facts = dict(part.split("=") for part in found.group(1).split("|"))
    assert int(facts["before"]) > 0 and facts["again"] == facts["before"], facts
    assert facts["hidden"] == "0 false" and facts["none"] == "0 0 0 0" and facts["all"] == "true", facts
    up, down = ([float(x) for x in facts[way].split()] for way in ("up", "down"))
    assert len(up) > 5 and up == sorted(up) and down == sorted(up, reverse=True), facts
    assert facts["state"] == "ascending descending", facts


globals()[sys.argv[1]](*sys.argv[2:])
