"""The part of README.md that quotes the report: one table, two plots, and where ganger loses."""

from report import comparisons, image, quick_ones, spread, store_words, table
from results import digits, duration, si

BEGIN, END = "<!-- scripts/compare writes from here -->\n", "<!-- to here -->\n"
PLOTS = "docs/benchmarks/plots"


def write(results, machine, plots, path):
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end and results.has("store")):
        return
    parts = [
        store(results, machine),
        image("store-throughput", plots, "Operations per second", PLOTS),
        messages(results),
        cluster(results, machine),
        image("cluster", plots, "Requests per second under each process manager", PLOTS),
        store_words(comparisons(results)),
        lost_targets(results),
    ]
    path.write_text(before + begin + "\n" + "\n".join(part.rstrip() + "\n" for part in parts if part) + "\n" + end + after)


def store(results, machine):
    what = "{}, uniform, 64 B, 1 process: operations"
    tasks = {task: results.figures("store", what.format(task)) for task in ("get", "set", "incr")}
    first = "get, uniform, 64 B, 1 process"
    p50, p99, cpu = (results.figures("store", f"{first}: {name}") for name in ("p50", "p99", "CPU"))
    rows = []
    for side in tasks["get"]:
        rates = [spread(figures[side], si, 1e3) for figures in tasks.values()]
        rows.append([side, *rates, *(spread(figures[side], duration, 1e3) for figures in (p50, p99, cpu))])
    quick = " in its quick form" if "store" in quick_ones(machine) else ""
    words = (
        f"`scripts/compare`{quick} on {machine['processor']}, {machine['processors']} processors, Linux"
        f" {machine['kernel']}: one process, 100,000 uniform keys of 16 bytes, values of 64. **Median** of the rounds"
        " [least..greatest]; nothing is pinned. [The report](docs/benchmarks/README.md) has all figures, says how"
        " they were measured, and which are noise.\n\n"
    )
    return words + table(["side", "get/s", "set/s", "incr/s", "get p50", "get p99", "CPU per get, server's too"], rows)


def messages(results):
    lines = []
    for case in ("64 B, 1 to 1", "64 B, 1 to 4", "4096 B, 1 to 1", "4096 B, 1 to 4", "1 MiB, 1 to 1"):
        rates = medians(results.figures("broker", f"messages received, {case}"))
        own = rates.pop("ganger", None)
        rates.pop("ganger, bare socket", None)
        if own:
            others = ", ".join(f"{digits(own / rate)} x {name}" for name, rate in rates.items())
            lines.append(f"- {case}: {si(own * 1e3)}/s, {others}")
    return "Messages received, as a multiple of what others deliver:\n\n" + "\n".join(lines) + "\n" if lines else ""


def cluster(results, machine):
    """What the plot doesn't show."""
    lines = []
    for what, words in (
        ("reload under load, kept connections: failed requests", "requests that fail in a reload, kept connections"),
        ("reload under load, a connection each: failed requests", "the same, a connection each"),
        ("kill under load, kept connections: failed requests", "requests that fail by a `kill -9`, kept connections"),
        ("kill to replacement's answer", "`kill -9` of the only worker to the next answer, ms"),
        ("start to first answer", "start to the first answer, ms"),
        ("managers' resident memory", "memory of the managers, MiB (Ganger's with its broker)"),
    ):
        values = medians(results.figures("cluster", what))
        if values:
            lines.append(f"- {words}: " + ", ".join(f"{name} {digits(value)}" for name, value in values.items()))
    quick = ", quick form" if "cluster" in quick_ones(machine) else ""
    head = f"One small Node app, two workers, 64 connections (medians{quick}):\n\n"
    return head + "\n".join(lines) + "\n" if lines else ""


def medians(figures):
    return {side: line["value"]["median"] for side, line in figures.items()}


def lost_targets(results):
    missed = [line for bench in results.lines for line in results.kind(bench, "target") if not line["met"]]
    total = sum(len(results.kind(bench, "target")) for bench in results.lines)
    if not missed:
        return ""
    lines = [
        f"- {line['what']}: {digits(line['value']['median'])}, wanted {line['wanted']} {line['unit']}".rstrip()
        for line in missed
    ]
    return f"Of {total} targets, these are not met:\n\n" + "\n".join(lines) + "\n"
