"""Which plots there are, and what is on each. A plot whose figures are missing is left out."""

import plot
from results import byte_size, duration, si

# A side has the same sign on every plot.
SIDES = ["ganger region", "ganger socket", "redis", "redis, 16 pipelined", "memcached", "lmdb",
         "mutex table", "dashmap, threads"]
SYSTEMS = ["ganger", "nats", "redis", "zeromq", "ganger, bare socket", "redis-rs"]
MANAGERS = ["ganger reuseport", "ganger shared", "node:cluster rr", "node:cluster none", "pm2",
            "nginx before", "single process"]
WHISKERS = "Medians of the rounds; lines show their least and greatest. "


def index(names, side):
    aliases = {"ganger": 0, "dashmap": 7}
    return names.index(side) if side in names else aliases.get(side, 7)


def write_all(results, folder):
    """Writes all plots that there are figures for; returns the names of their files."""
    plots = {
        "store-throughput": store_throughput,
        "store-processes": store_processes,
        "store-latency": store_latency,
        "store-sizes": store_sizes,
        "messages": messages,
        "cluster": cluster,
        "keys": keys,
        "fan-out": fan_out,
        "workers": workers,
    }
    written = []
    for name, draw in plots.items():
        path = folder / f"{name}.svg"
        image = draw(results)
        if image:
            path.write_text(image)
            written.append(name)
        elif path.exists():
            path.unlink()
    return written


def bar_rows(figures, names):
    rows = []
    for side, line in figures.items():
        value = line["value"]
        rows.append((index(names, side), side, value["median"], value["min"], value["max"]))
    return rows


def scaled(rows, factor):
    return [(place, name, *(value * factor for value in values)) for place, name, *values in rows]


def store_throughput(results):
    panels = []
    for task in ("get", "set", "incr", "get of 16 keys"):
        figures = results.figures("store", f"{task}, uniform, 64 B, 1 process: operations")
        if figures:
            title = f"{task}: keys per second" if "16" in task else f"{task}: operations per second"
            panels.append((title, scaled(bar_rows(figures, SIDES), 1e3)))
    if not panels:
        return None
    note = WHISKERS + "One process, 100,000 uniform keys, 64-byte values."
    return plot.bars(panels, si, note, "Throughput of shared memory and of stores behind sockets")


def store_processes(results):
    panels = []
    for task in ("get", "set"):
        series = {}
        for processes in (1, 2, 4):
            text = "1 process" if processes == 1 else f"{processes} processes"
            what = f"{task}, uniform, 64 B, {text}: operations"
            for place, name, *values in bar_rows(results.figures("store", what), SIDES):
                series.setdefault((place, name), []).append((processes, *(value * 1e3 for value in values)))
        if series:
            panels.append({
                "title": f"{task}, uniform, 64 B",
                "x": ("processes at once", True, lambda value: f"{value:g}"),
                "x_values": [1, 4],
                "x_range": (0, 0.62),
                "x_ticks": [1, 2, 4],
                "y": ("operations/s of all together", True, si),
                "series": [(place, name, points) for (place, name), points in sorted(series.items())],
            })
    if not panels:
        return None
    return plot.lines(panels, WHISKERS + "Nothing is pinned.", "Throughput of one, two and four processes")


def store_latency(results):
    panels = []
    for line in results.kind("store", "distribution"):
        operation = line["what"].split(" ")[0]
        panel = next((panel for panel in panels if panel["operation"] == operation), None)
        if panel is None:
            panel = {
                "operation": operation,
                "title": line["what"],
                "x": ("from when it was due to its end", True, duration),
                "y": ("operations done within", False, lambda value: f"{value:.0%}"),
                "y_values": [0, 0.951],
                "y_ticks": [0, 0.2, 0.4, 0.6, 0.8, 1],
                "series": [],
            }
            panels.append(panel)
        points = thinned([tuple(point) for point in line["points"]])
        panel["series"].append((index(SIDES, line["side"]), line["side"], points))
    if not panels:
        return None
    note = "All rounds together. Open loop: one process that starts an operation each 200 \u00b5s, late or not."
    return plot.lines(panels, note, "Latency at a steady pace", with_markers=False)


def thinned(points):
    """Those of them that can be told apart on a plot, and no tail that has no place on it."""
    kept, last = [(points[0][0], 0.0)], 0.0
    for value, share in points:
        if share - last >= 0.004 or share >= 0.999:
            kept.append((value, share))
            last = share
        if share >= 0.9995:
            break
    return kept


def curve_panel(results, bench, name, title, x, y, factor, names):
    series = []
    for side, points in results.curve(bench, name).items():
        points = [(at, *(value * factor for value in values)) for at, *values in points]
        series.append((index(names, side), side, points))
    if not series:
        return None
    return {"title": title, "x": x, "y": y, "series": sorted(series)}


def joined(panels, note, description):
    panels = [panel for panel in panels if panel]
    return plot.lines(panels, note, description) if panels else None


def store_sizes(results):
    panels = [
        curve_panel(results, "store", f"{task} by value size", task, ("size of the value", True, byte_size),
                    ("time per operation", True, duration), 1e3, SIDES)
        for task in ("get", "set")
    ]
    for panel in filter(None, panels):
        panel["x_range"] = (1.1, 6.1)
        panel["x_ticks"] = [16, 256, 4096, 65536, 1 << 20]
    note = WHISKERS + "One process, uniform keys, 64 MiB of values at most; pipelined: per operation, 16 at once."
    return joined(panels, note, "Cost by size of the value")


def keys(results):
    axis = ("keys", True, si)
    panels = [
        curve_panel(results, "region", f"{task} by number of keys", f"{task}, uniform", axis,
                    ("time per operation", False, duration), 1, SIDES)
        for task in ("get", "set")
    ]
    memory = curve_panel(results, "region", "memory per entry by number of keys",
                         "memory beyond key and value", axis, ("bytes per entry", True, si),
                         1, SIDES)
    return joined(panels + [memory], WHISKERS + "One process; keys of 16, values of 64 bytes.",
                  "Time and memory by number of keys")


def fan_out(results):
    panel = curve_panel(results, "broker", "fan-out by number of subscribers", "one publisher, 64 B",
                        ("subscribers", True, lambda value: f"{value:g}"),
                        ("messages/s of all together", True, si), 1e3, SYSTEMS)
    if panel:
        panel["x_range"] = (-0.02, 2.42)
        panel["x_ticks"] = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    note = WHISKERS + "Closed loop: the publisher sends as fast as it may."
    return plot.lines([panel], note, "Fan-out by number of subscribers", columns=1) if panel else None


def workers(results):
    axis = ("workers", False, lambda value: f"{value:g}")
    panels = [
        curve_panel(results, "cluster", "supervisor's memory by number of workers", "supervisor's memory", axis,
                    ("MiB", False, lambda value: f"{value:g}"), 1, SYSTEMS),
        curve_panel(results, "cluster", "ganger status by number of workers", "ganger status", axis,
                    ("start to exit, ms", False, lambda value: f"{value:g}"), 1, SYSTEMS),
    ]
    note = WHISKERS + "The workers sleep and share one socket; no broker."
    return joined(panels, note, "Supervisor by number of workers")


def messages(results):
    panels = []
    for case in ("64 B, 1 to 1", "64 B, 1 to 4", "4096 B, 1 to 1", "4096 B, 1 to 4", "1 MiB, 1 to 1"):
        figures = results.figures("broker", f"messages received, {case}")
        if figures:
            panels.append((f"{case}: messages received per second", scaled(bar_rows(figures, SYSTEMS), 1e3)))
    note = WHISKERS + "Closed loop, as fast as possible."
    return plot.bars(panels, si, note, "Messages received per second") if panels else None


def cluster(results):
    panels = []
    for case in ("kept connections", "a connection each"):
        figures = results.figures("cluster", f"{case}: requests")
        if figures:
            panels.append((f"{case}: requests per second", bar_rows(figures, MANAGERS)))
    note = WHISKERS + "wrk, 64 connections, closed loop."
    return plot.bars(panels, si, note, "Requests per second under each process manager") if panels else None
