"""What the benchmarks wrote: JSON lines, read back."""

import json
from pathlib import Path

BENCHES = ["region", "store", "broker", "cluster"]


class Results:
    """All lines of all benchmarks that were run."""

    def __init__(self, folder):
        self.lines = {}
        for bench in BENCHES:
            path = Path(folder) / f"{bench}.jsonl"
            if path.exists():
                self.lines[bench] = [json.loads(line) for line in path.read_text().splitlines()]

    def has(self, bench):
        return bench in self.lines

    def kind(self, bench, kind):
        return [line for line in self.lines.get(bench, []) if line["kind"] == kind]

    def figures(self, bench, what):
        """The figures of all sides of one measurement, by side, in the order of the sides."""
        lines = [line for line in self.kind(bench, "figure") if line["what"] == what]
        return {line["side"]: line for line in lines}

    def curve(self, bench, name):
        """Side -> points (x, median, low, high)."""
        sides = {}
        for line in self.kind(bench, "figure"):
            if line.get("curve") == name:
                value = line["value"]
                point = (line["x"], value["median"], value["min"], value["max"])
                sides.setdefault(line["side"], []).append(point)
        return sides

    def cells(self, bench):
        """Measurements with several figures each: name -> side -> figure's name -> line."""
        cells = {}
        for line in self.kind(bench, "figure"):
            cell, colon, figure = line["what"].rpartition(": ")
            if colon:
                cells.setdefault(cell, {}).setdefault(line["side"], {})[figure] = line
        return cells


def si(value):
    """Three digits and a prefix."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{digits(value / size)} {prefix}"
    return digits(value)


def digits(value):
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.0f}"


def duration(nanos):
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "\u00b5s")):
        if nanos >= size * 0.9995:
            return f"{digits(nanos / size)} {unit}"
    return f"{digits(nanos)} ns"


def byte_size(count):
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= size:
            return f"{digits(count / size)} {unit}"
    return f"{digits(count)} B"
