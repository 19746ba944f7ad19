"""The report in Markdown, from what the benchmarks wrote."""

from machine import PEERS
from results import digits, duration, si

INTRODUCTION = """# Benchmarks

Written by `scripts/compare`: on your machine, the same command writes it anew. The figures behind it are
the JSON lines in [data](data). Every cell is the **median** of the rounds, with [the least..the greatest].
{warning}"""

METHOD = """## Method

- The sides of a comparison take turns within each round, so that whatever else the machine does falls on all of
  them. At least five rounds{rounds}, after a warm-up that is not counted.
- Every client, server, publisher, subscriber and worker is a process of its own; the map within one process
  (`dashmap`) has threads.
- **Pinned**: the processes of `region` are kept on a processor each. Nothing is pinned in `store` (its limits say
  where they are), `broker` and `cluster`: the system places them, as it does for everybody.
- **Closed loop** (the next operation begins when the last one has ended) are all throughputs, and the latencies
  in the tables of `store`: they say what an operation costs who waits for it, not what happens to those behind it.
  **Open loop** (operations begin at their time, late or not, and are counted from then) are the latencies at a
  steady pace of `store` and `broker`. wrk is a closed loop.
- Clients of `redis`, memcached, NATS and ZeroMQ are hand-written and do no more than they must; Ganger's socket is
  used through the client that its users have. In `broker`, like is compared with like where Redis is the measure:
  `ganger` with `redis-rs`, each through the client that its users have (with tokio), and `ganger, bare socket` with
  `redis`. Servers run with their defaults, without persistence; LMDB without syncing, on /dev/shm.
- Ganger's programs and crates are built as `cargo bench` builds them, with thin link-time optimisation; `cargo build
  --profile bench` gives users the same.
- CPU per operation is that of clients and server together, as the kernel accounts for it. The kernel's own work
  outside of both (interrupts) is not in it.
"""


def write(results, machine, plots, path):
    quick = [f"`{bench}`" for bench in quick_ones(machine)]
    names = " and ".join(quick)
    warning = f"\nOf {names} this is the quick form (`--quick`): read no more than the first digit.\n" if quick else ""
    rounds = " (three of `broker` and `cluster` in the quick form)" if quick else ""
    parts = [
        INTRODUCTION.format(warning=warning),
        machine_text(machine),
        METHOD.format(rounds=rounds),
        noise(results, machine),
        store(results, plots),
        broker(results, plots),
        cluster(results, plots),
        region(results, plots),
        scaling(results, plots),
        targets(results),
        missing(results, machine),
    ]
    path.write_text("\n".join(part.rstrip() + "\n" for part in parts if part))


def comparisons(results):
    """The cells of `store` that compare stores, without the limits."""
    cells = results.cells("store").items()
    return {name: sides for name, sides in cells
            if "there and back" not in name and all(set(CELL) <= set(figures) for figures in sides.values())}


def quick_ones(machine):
    return [bench for bench, run in machine["runs"].items() if run["quick"]]


def image(name, plots, words, folder="plots"):
    return f"![{words}]({folder}/{name}.svg)\n\n" if name in plots else ""


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def spread(line, show, factor=1):
    value = line["value"]
    median, low, high = (show(value[part] * factor) for part in ("median", "min", "max"))
    return median if value["rounds"] == 1 else f"**{median}** [{low}..{high}]"


def machine_text(machine):
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    runs = ", ".join(
        f"`{bench}` at commit {run['commit'] or 'unknown'} in {run['seconds'] / 60:.1f} minutes"
        for bench, run in machine["runs"].items()
    )
    virtual = "" if machine["virtual"] == "no" else f", virtual ({machine['virtual']})"
    return (
        "## Machine\n\n"
        f"{machine['processor']}, {machine['processors']} processors{virtual}, {machine['memory_gib']} GiB; "
        f"Linux {machine['kernel']}, governor {machine['governor']}. {versions}. "
        f"Runs: {runs}."
    )


def noise(results, machine):
    """Which figures say little: those whose rounds differ by more than a half."""
    lines = ["## What is noise\n"]
    for bench in results.lines:
        figures = [line for line in results.kind(bench, "figure") if line["value"]["rounds"] > 1]
        wide = [line for line in figures if line["value"]["max"] > 1.5 * max(line["value"]["min"], 1e-12)]
        if figures:
            lines.append(f"- `{bench}`: the rounds of {len(wide)} of {len(figures)} figures differ by more than half.")
    lines.append(
        "\nTwo processes that wait for each other are fast on one processor and slow on two, where an idle one has to"
        " be woken; where the system puts them changes from round to round. So figures of one client and one server"
        " have two values, not one, and their ranges are wide; \"limits\" below shows both. p99.9 of a short slice is"
        " little more than its worst moments."
    )
    lines.append(
        "\nWhat the machine does by itself is measured too. `bare loop`, beside `region`, shares nothing and touches no"
        " memory: what two of its processes do beside one is what the two processors are worth. A virtual machine's"
        " processors can run at a tenth of their speed for some hundredths of a second, all at once. So the benchmarks"
        " time a few hundred multiplications again and again, outside of what they measure: every 512 sets while an index"
        " grows, every 2 ms while messages go at a steady pace. \"On a slow processor\" are the sets beside multiplications"
        " that took more than 1.5 times the round's median, and the messages within 5 ms of some that took more than three"
        " times (the process that looks has slept before, so its times differ more); \"as usual\" are the others."
    )
    if machine["processors"] < 4:
        lines.append(
            f"With {machine['processors']} processors, load generator, servers and workers share them: figures of four"
            " processes, and all of `cluster`, are those of a machine that is full."
        )
    return "\n".join(lines)


CELL = ["operations", "p50", "p99", "p99.9", "CPU"]


def cell_rows(sides):
    rows = []
    for side, figures in sides.items():
        rows.append([
            side,
            spread(figures["operations"], si, 1e3),
            *(spread(figures[name], duration, 1e3) for name in CELL[1:]),
        ])
    return rows


def store(results, plots):
    if not results.has("store"):
        return ""
    head = ["side", "operations/s", "p50", "p99", "p99.9", "CPU per operation"]
    cells = {name: sides for name, sides in results.cells("store").items()
             if all(set(CELL) <= set(figures) for figures in sides.values())}
    out = ["## Shared memory against sockets (`cargo bench --bench store`)\n"]
    limits = {name: sides for name, sides in cells.items() if "there and back" in name}
    first = "get, uniform, 64 B, 1 process"
    if first in cells:
        out.append(f"### {first}, beside what no socket can beat\n")
        rows = cell_rows(cells[first])
        for name, sides in limits.items():
            place = name.split(", ", 1)[1]
            rows += [[f"*{row[0]}, {place}*", *row[1:]] for row in cell_rows(sides)]
        out.append(table(head, rows))
        out.append("In italics: limits, 64 bytes to another process and back, and nothing else.\n")
        out += [line["text"] + ".\n" for line in results.kind("store", "note") if "clock" in line["text"]]
    out.append(image("store-throughput", plots, "Operations per second of each side, one process"))
    out.append(image("store-processes", plots, "Operations per second of one, two and four processes"))
    out.append(image("store-latency", plots, "Share of operations done within a time, at a steady pace"))
    out.append(image("store-sizes", plots, "Time per operation by size of the value"))
    out.append(store_words(comparisons(results)))
    out.append("<details><summary>All operations, patterns and numbers of processes</summary>\n")
    for name, sides in cells.items():
        if name not in limits and name != first:
            out.append(f"#### {name}\n")
            out.append(table(head, cell_rows(sides)))
    out.append("</details>\n")
    steady = [(name, sides) for name, sides in results.cells("store").items() if "/s, " in name]
    sizes = plain_rows(results, "store", lambda line: "curve" in line)
    if sizes:
        out.append("<details><summary>All sizes of values</summary>\n")
        out.append(table(["measurement", "side", "value", "unit"], sizes) + "\n</details>\n")
    for name, sides in steady:
        rows = [
            [side, *(spread(figures[part], duration, 1e3) for part in CELL[1:4])]
            for side, figures in sides.items()
        ]
        out.append(f"### {name}, one process, open loop\n")
        out.append(table(["side", *CELL[1:4]], rows))
    return "\n".join(out)


def store_words(cells):
    """Who is faster than the mapped region, how often, and where by most."""
    faster = {}
    for name, sides in cells.items():
        if "ganger region" not in sides:
            continue
        own = sides["ganger region"]["operations"]["value"]["median"]
        for side, figures in sides.items():
            times = figures["operations"]["value"]["median"] / own
            if times > 1.05:
                faster.setdefault(side, []).append((times, name))
    if not faster:
        return "Nobody is faster than the mapped region in any of the cells.\n"
    lines = []
    for side, found in faster.items():
        times, name = max(found)
        lines.append(f"- **{side}**: in {len(found)} of {len(cells)} cells, by most {digits(times)} x ({name})")
    return (
        "### Where the mapped region loses\n\nMore operations per second than the region, by more than 5 %:\n\n"
        + "\n".join(lines)
        + "\n\nThe map can't be shared with another process, and the table's values can't grow; a process that is"
        " killed while it holds the table's mutex leaves it locked for ever.\n"
    )


def plain_rows(results, bench, is_wanted):
    rows = []
    for line in results.kind(bench, "figure"):
        if is_wanted(line):
            rows.append([line["what"], line["side"], spread(line, digits), line["unit"]])
    return rows


def everything(results, bench):
    rows = plain_rows(results, bench, lambda line: True)
    head = table(["measurement", "side", "value", "unit"], rows)
    return f"<details><summary>All figures of {bench}</summary>\n\n{head}\n</details>\n"


def broker(results, plots):
    if not results.has("broker"):
        return ""
    rows = plain_rows(results, "broker", lambda line: "one way" in line["what"] or "request" in line["what"])
    return "\n".join([
        "## Messages (`cargo bench --bench broker`)\n",
        image("messages", plots, "Messages received per second"),
        table(["latency", "side", "value", "unit"], rows) if rows else "",
        everything(results, "broker"),
    ])


def cluster(results, plots):
    if not results.has("cluster"):
        return ""
    def is_wanted(line):
        return any(word in line["what"] for word in ("p99", "start to", "kill to", "managers' resident", "under load"))
    rows = plain_rows(results, "cluster", is_wanted)
    return "\n".join([
        "## Clustering (`cargo bench --bench cluster`)\n",
        image("cluster", plots, "Requests per second under each process manager"),
        table(["measurement", "side", "value", "unit"], rows) if rows else "",
        "nginx stands as a proxy before two processes, which somebody else has to start and replace. Reloads of"
        " node:cluster are those of its documentation: each worker disconnects once its successor listens. What"
        " failed is what wrk counts: who hangs until its end isn't in it, but is missing from the requests. That"
        " Ganger's reloads lose nothing, whatever the program and the moment, is what `cargo test --release --test it"
        " supervisor::` tests.\n",
        everything(results, "cluster"),
    ])


def region(results, _):
    if not results.has("region"):
        return ""
    return "## The region (`cargo bench --bench region`)\n\n" + everything(results, "region")


def ends(points):
    return points[0], points[-1]


def scaling(results, plots):
    """The curves, each with what explains its shape."""
    out = ["## As work grows\n"]
    for task, cause in (("get", "copied out"), ("set", "written, and the old one's block used again")):
        points = results.curve("region", f"{task} by number of keys").get("ganger region")
        if points:
            (few, low, *_), (many, high, *_) = ends(points)
            out.append(
                f"- **{task}**: {duration(low)} among {si(few)} keys, {duration(high)} among {si(many)}. A {task}"
                f" touches a bucket and an entry however many there are; what grows is the chance that these lines"
                f" are in no cache, and from some size on that their pages are not in the TLB. The value is {cause}.\n"
            )
    memory = results.curve("region", "memory per entry by number of keys").get("ganger region")
    if memory:
        (few, low, *_), (many, high, *_) = ends(memory)
        out.append(
            f"- **memory per entry**: {digits(low)} bytes beyond key and value with {si(few)} keys, {digits(high)} with"
            f" {si(many)}. The region of 4 GiB has 256 shards, each with a page of 64 KiB of its own however few"
            " its entries are; with many, what stays is the entry's header, its slot and the free slots of its bucket.\n"
        )
    out.append(image("keys", plots, "Time and memory by number of keys"))
    for side, points in results.curve("broker", "fan-out by number of subscribers").items():
        if side == "ganger":
            best = max(points, key=lambda point: point[1])
            (_, low, *_), (many, high, *_) = ends(points)
            out.append(
                f"- **fan-out**: {si(low * 1e3)} messages/s with one subscriber, {si(best[1] * 1e3)} at best, with"
                f" {best[0]:g}, {si(high * 1e3)} with {many:g}. A message is encoded once and lies in the ring once;"
                " each subscriber adds a cursor and its part of a vectored write. Once all processors are busy, more"
                " subscribers share what there is.\n"
            )
    out.append(image("fan-out", plots, "Fan-out by number of subscribers"))
    memory = results.curve("cluster", "supervisor's memory by number of workers").get("ganger")
    status = results.curve("cluster", "ganger status by number of workers").get("ganger")
    if memory and status:
        (few, low, *_), (many, high, *_) = ends(memory)
        (_, quick, *_), (_, slow, *_) = ends(status)
        per_worker = (high - low) * 1024 / (many - few)
        out.append(
            f"- **supervisor**: {digits(low)} MiB with one worker, {digits(high)} with {many:g}:"
            f" {digits(per_worker)} KiB for each, which are its state, the buffers of its pipes and what is kept of"
            " its output: a straight line."
            f" `ganger status` takes {digits(quick)} ms with one and {digits(slow)} with {many:g}: a start and an exit,"
            " and then what is read about each worker and printed.\n"
        )
    out.append(image("workers", plots, "Supervisor by number of workers"))
    return "\n".join(out) if len(out) > 4 or any(out[1:]) else ""


def targets(results):
    rows = []
    for bench in results.lines:
        for line in results.kind(bench, "target"):
            mark = "met" if line["met"] else "**not met**"
            value = spread(line, digits)
            rows.append([bench, line["what"], value, f"{line['wanted']} {line['unit']}".strip(), mark])
    if not rows:
        return ""
    return "## Targets\n\n" + table(["benchmark", "target", "measured", "wanted", ""], rows)


def missing(results, machine):
    lines = [f"- {name}: not found ({PEERS[name][2]})" for name, version in machine["versions"].items() if not version]
    for bench in results.lines:
        notes = [line["text"] for line in results.kind(bench, "note") if "clock" not in line["text"]]
        lines += [f"- `{bench}`: {note}" for note in notes]
    lines += [f"- `{bench}` was not run" for bench in machine["left_out"]]
    return "## What is missing, and notes\n\n" + "\n".join(lines) if lines else ""
