"""Plots as SVG, by nothing but text: bars, lines and steps on linear and logarithmic axes.

Each series has a colour, and a marker or hatching of its own, so that none needs the colour. Text
and lines follow the reader's light or dark scheme.
"""

import math
from html import escape

WIDTH = 860
PANEL_GAP = 70
COLOURS = ["#d1495b", "#2a7fba", "#2f9e6e", "#b8860b", "#8e6bbf", "#c2662d", "#4c9aa8", "#8a8f98"]
MARKERS = ["circle", "square", "triangle", "diamond", "cross", "plus", "ring", "bar"]
# Bars that differ by so much or more are drawn on a logarithmic axis.
LOG_FROM = 30
DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 3", "6 2 1 2 1 2"]
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #3d444d; }
.title { font-size: 14px; font-weight: 600; }
.small { font-size: 11px; }
.axis { stroke: #6e7781; stroke-width: 1; fill: none; }
.grid { stroke: #8b949e; stroke-opacity: 0.28; stroke-width: 1; }
.whisker { stroke: #3d444d; stroke-width: 1.2; }
@media (prefers-color-scheme: dark) {
  text { fill: #d6dde5; }
  .axis { stroke: #9aa4af; }
  .whisker { stroke: #d6dde5; }
}
"""


def colour(index):
    return COLOURS[index % len(COLOURS)]


def marker(index, x, y):
    """The sign of a series at a point."""
    kind, hue = MARKERS[index % len(MARKERS)], colour(index)
    stroke = f'stroke="{hue}" stroke-width="2" fill="none"'
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{hue}"/>',
        "square": f'<rect x="{x - 3.8:.1f}" y="{y - 3.8:.1f}" width="7.6" height="7.6" fill="{hue}"/>',
        "triangle": f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{hue}"/>',
        "diamond": f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="{hue}"/>',
        "cross": f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {stroke}/>',
        "plus": f'<path d="M{x - 5:.1f} {y:.1f}h10m-5 -5v10" {stroke}/>',
        "ring": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.8" {stroke}/>',
        "bar": f'<path d="M{x - 5:.1f} {y:.1f}h10" stroke="{hue}" stroke-width="4"/>',
    }
    return shapes[kind]


def hatchings(count):
    """A pattern for the bars of each series: lines that differ in direction and distance."""
    shapes = [
        "",
        '<path d="M0 8L8 0" />',
        '<path d="M0 0L8 8" />',
        '<path d="M0 4H8" />',
        '<path d="M4 0V8" />',
        '<path d="M0 8L8 0M0 0L8 8" />',
        '<path d="M0 4H8M4 0V8" />',
        '<circle cx="4" cy="4" r="1.6" />',
    ]
    patterns = []
    for index in range(count):
        ink = f'<g stroke="#fff" stroke-opacity="0.75" stroke-width="1.5" fill="none">{shapes[index % 8]}</g>'
        patterns.append(
            f'<pattern id="hatch{index}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<rect width="8" height="8" fill="{colour(index)}"/>{ink}</pattern>'
        )
    return "".join(patterns)


class Axis:
    """Values onto pixels."""

    def __init__(self, values, start, end, is_log):
        self.start, self.end, self.is_log = start, end, is_log
        values = [value for value in values if value > 0 or not is_log]
        low, high = min(values), max(values)
        if is_log:
            self.low, self.high = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
            self.high = max(self.high, self.low + 1)
            self.top = math.log10(high)
        else:
            self.low, self.high = min(low, 0), high * 1.05 or 1

    def at(self, value):
        if self.is_log:
            value = math.log10(max(value, 10**self.low))
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        if self.is_log:
            step = max(1, math.ceil((self.high - self.low) / 7))
            return [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1, step)]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
        count = int(self.high / step + 1e-9)
        return [step * index for index in range(count + 1)]


def text(x, y, words, anchor="start", kind="", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}" {more}>{escape(words)}</text>'


def document(height, description, body, bars=0):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img">\n'
        f"<title>{escape(description)}</title><style>{STYLE}</style><defs>{hatchings(bars)}</defs>\n"
        + "\n".join(body)
        + "\n</svg>\n"
    )


def bars(panels, show, note, description):
    """Horizontal bars: on one logarithmic axis for all panels where they differ by much, else each
    panel on an axis from zero.

    `panels` are (title, rows), rows are (series index, name, median, low, high).
    """
    body, top, series = [], 12, 0
    left, right, row_height = 190, WIDTH - 100, 21
    spans = [[value for row in rows for value in row[2:5]] for _, rows in panels]
    is_log = any(max(span) > LOG_FROM * min(span) for span in spans)
    note += " Logarithmic axis." if is_log else " Each axis begins at zero."
    for (title, rows), span in zip(panels, spans):
        axis = Axis(sum(spans, []) if is_log else span, left, right, is_log)
        if is_log:
            # A bar that ends at a decade needs no other one behind it.
            axis.high = max(axis.low + 1, axis.top + 0.1)
        body.append(text(8, top + 14, title, kind="title"))
        top += 24
        bottom = top + row_height * len(rows)
        for tick in axis.ticks():
            x = axis.at(tick)
            body.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
            body.append(text(x, bottom + 13, show(tick), "middle", "small"))
        for row, (index, name, median, low, high) in enumerate(rows):
            series = max(series, index + 1)
            y = top + row * row_height
            end, middle = axis.at(median), y + row_height / 2
            body.append(text(left - 8, middle + 4, name, "end"))
            body.append(
                f'<rect x="{left}" y="{y + 3}" width="{max(end - left, 1):.1f}" height="{row_height - 6}" '
                f'fill="url(#hatch{index % 8})" stroke="{colour(index)}"/>'
            )
            from_x, to_x = axis.at(low), axis.at(high)
            body.append(
                f'<path class="whisker" d="M{from_x:.1f} {middle}H{to_x:.1f}'
                f'M{from_x:.1f} {middle - 4}v8M{to_x:.1f} {middle - 4}v8"/>'
            )
            body.append(text(max(to_x, end) + 6, middle + 4, show(median)))
        top = bottom + 30
    body.append(text(8, top + 2, note, kind="small"))
    return document(top + 12, description, body, min(series, 8))


def lines(panels, note, description, columns=2, with_markers=True):
    """Lines on panels side by side.

    `panels` are dicts: title, x and y (label, is_log, show), series: (index, name, points), where
    points are (x, y) or (x, y, low, high).
    """
    body, names = [], {}
    columns = min(columns, len(panels))
    panel_width = (WIDTH - 20 - PANEL_GAP * (columns - 1)) / columns
    plot_height, header = 250, 30
    for place, panel in enumerate(panels):
        left = 55 + (place % columns) * (panel_width + PANEL_GAP)
        top = header + (place // columns) * (plot_height + 85)
        names.update({index: name for index, name, _ in panel["series"]})
        body += panel_lines(panel, left, left + panel_width - 65, top, top + plot_height, with_markers)
    rows = -(-len(panels) // columns)
    top = header + rows * (plot_height + 85) - 18
    x = 12
    for index, name in sorted(names.items()):
        width = 58 + 6.5 * len(name)
        if x + width > WIDTH:
            x, top = 12, top + 22
        body.append(
            f'<path d="M{x} {top}h34" stroke="{colour(index)}" stroke-width="2" fill="none" '
            f'stroke-dasharray="{DASHES[index % 8]}"/>'
        )
        body.append(marker(index, x + 17, top))
        body.append(text(x + 40, top + 4, name))
        x += width
    body.append(text(12, top + 28, note, kind="small"))
    return document(top + 40, description, body)


def panel_lines(panel, left, right, top, bottom, with_markers):
    """One panel: axes, then each series with its spread."""
    points = [point for _, _, points in panel["series"] for point in points]
    (x_label, x_log, x_show), (y_label, y_log, y_show) = panel["x"], panel["y"]
    across = Axis(panel.get("x_values") or [point[0] for point in points], left, right, x_log)
    up = Axis(panel.get("y_values") or [value for point in points for value in point[1:]], bottom, top, y_log)
    if "x_range" in panel:
        across.low, across.high = panel["x_range"]
    body = [text(left - 45, top - 12, panel["title"], kind="title")]
    for tick in panel.get("y_ticks") or up.ticks():
        y = up.at(tick)
        body.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        body.append(text(left - 6, y + 4, y_show(tick), "end", "small"))
    for tick in panel.get("x_ticks") or across.ticks():
        x = across.at(tick)
        body.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        body.append(text(x, bottom + 15, x_show(tick), "middle", "small"))
    body.append(f'<path class="axis" d="M{left:.1f} {top}V{bottom}H{right:.1f}"/>')
    body.append(text((left + right) / 2, bottom + 32, x_label, "middle", "small"))
    body.append(text(right, top - 12, y_label, "end", "small"))
    for index, _, points in panel["series"]:
        place = [(across.at(point[0]), up.at(point[1])) for point in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in place)
        body.append(
            f'<path d="M{path}" stroke="{colour(index)}" stroke-width="2" fill="none" '
            f'stroke-linejoin="round" stroke-dasharray="{DASHES[index % 8]}"/>'
        )
        for point, (x, _) in zip(points, place):
            if len(point) == 4:
                low, high = up.at(point[2]), up.at(point[3])
                body.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour(index)}" stroke-opacity="0.6"/>')
        signs = place if with_markers else place[:: max(1, len(place) // 6)]
        body += [marker(index, x, y) for x, y in signs]
    return body
