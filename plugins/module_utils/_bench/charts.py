# SPDX-FileCopyrightText: The diskwright.proxmox authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PRIVATE to the collection: not part of its public API, may change in any release.
"""Charts of a benchmark, drawn by matplotlib as SVG that stands in a page and takes the page's colours.

Source: matplotlib 3.11's SVG backend. It writes colours into ``style`` attributes, which a page with a strict policy
does not apply, so they become classes here: ``fill-ink``, ``stroke-good`` and so on.
"""

from __future__ import annotations

import io
import re
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import DiskwrightError

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError:  # where benchmarks run there is none, and ansible-test imports this file without it
    HAS_MATPLOTLIB = False
else:
    HAS_MATPLOTLIB = True

_ROW_INCHES: t.Final = 0.24
_WIDTH_INCHES: t.Final = 12.0
_AXIS_INCHES: t.Final = 0.5
_GAP: t.Final = 0.03  # between the two, of the width
_WIDE: t.Final = 60
_DOTS: t.Final = (42, 20, 10, 5)  # square points
_LETTER_INCHES: t.Final = 0.078
# Colours that stand for those of the page, as matplotlib writes them.
_COLOURS: t.Final = {
    "#010101": "ink",
    "#020202": "soft",
    "#030303": "line",
    "#040404": "good",
    "#050505": "risk",
    "#060606": "mark",
}
_NAMED: t.Final = {name: colour for colour, name in _COLOURS.items()}
_SETTINGS: t.Final = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _NAMED["line"],
    "axes.labelcolor": _NAMED["soft"],
    "text.color": _NAMED["ink"],
    "xtick.color": _NAMED["line"],
    "xtick.labelcolor": _NAMED["soft"],
    "ytick.color": _NAMED["line"],
    "ytick.labelcolor": _NAMED["ink"],
    "grid.color": _NAMED["line"],
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart, of one combination.

    :param middle: the median of what the workload is judged by.
    :param quartiles: a quarter of the values is below the first, a quarter above the second.
    :param ends: the smallest and the largest value.
    :param percentiles: of the latency, in nanoseconds, from the median to the rarest.
    :param risky: whether it loses data in a crash.
    """

    label: str
    middle: float
    quartiles: tuple[float, float]
    ends: tuple[float, float]
    percentiles: tuple[int, int, int, int]
    risky: bool = False

    @property
    def colour(self) -> str:
        """That of its dots, as matplotlib writes it."""
        return _NAMED["risk" if self.risky else "mark"]


@dataclass(frozen=True, slots=True)
class Axis:
    """What numbers are.

    :param title: in words.
    :param tell: a number for people.
    """

    title: str
    tell: t.Callable[[float], str]


def check_library() -> None:
    """Say it before anything is drawn.

    :raises DiskwrightError: matplotlib is missing.
    """
    if not HAS_MATPLOTLIB:
        raise DiskwrightError(
            "charts are drawn by the Python library matplotlib, which is missing on the controller; install it there"
            " (pip install matplotlib), or go without: charts: false"
        )


def chart(lines: Sequence[Line], values: Axis, latency: Axis, noise: tuple[float, float] | None) -> str:
    """Two charts with the same lines. Left a dot for the median, a thick line for half of the values, a thin one for
    all of them; right, on a logarithmic axis, a dot for each percentile, the rarer the smaller.

    :param noise: from where to where values can't be told from the best.
    :returns: SVG.
    """
    check_library()
    with matplotlib.rc_context(_SETTINGS):
        figure, left, right = _canvas([line.label for line in lines])
        _values(left, lines, noise)
        _latencies(right, lines)
        _finish(left, lines, values)
        _finish(right, lines, latency)
        right.tick_params(axis="y", labelleft=False)
    told = (f"{line.label} {values.tell(line.middle)}" for line in lines)
    return _svg(figure, f"{values.title}: {'; '.join(told)}")


def _canvas(labels: Sequence[str]) -> tuple[t.Any, t.Any, t.Any]:
    """Room for labels on the left and axes below; matplotlib's own layout engines take longer than the drawing."""
    height = _ROW_INCHES * len(labels) + _AXIS_INCHES
    start = min(0.5, (max(map(len, labels)) * _LETTER_INCHES + 0.15) / _WIDTH_INCHES)
    width, bottom = (0.97 - start - _GAP) / 2, _AXIS_INCHES / height
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    left, right = (
        figure.add_axes((edge, bottom, width, 1 - bottom - 0.01)) for edge in (start, start + width + _GAP)
    )
    return figure, left, right


def _values(axes: t.Any, lines: Sequence[Line], noise: tuple[float, float] | None) -> None:
    if noise is not None:
        axes.axvspan(*noise, color=_NAMED["good"], alpha=0.16, linewidth=0)
    for row, line in enumerate(reversed(lines)):
        axes.plot(line.ends, [row, row], color=line.colour, linewidth=1.2, solid_capstyle="butt")
        axes.plot(line.quartiles, [row, row], color=line.colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axes.plot([line.middle], [row], "o", markersize=5, color=line.colour)
    axes.set_xlim(0, max(line.ends[1] for line in lines) * 1.04)
    axes.locator_params(axis="x", nbins=5)


def _latencies(axes: t.Any, lines: Sequence[Line]) -> None:
    axes.set_xscale("log")
    for row, line in enumerate(reversed(lines)):
        axes.plot(line.percentiles, [row] * len(line.percentiles), color=line.colour, linewidth=1, alpha=0.6)
    axes.scatter(
        [value for line in reversed(lines) for value in line.percentiles],
        [row for row, line in enumerate(lines) for _value in line.percentiles],
        s=[size for _line in lines for size in _DOTS],
        c=[line.colour for line in reversed(lines) for _value in line.percentiles],
    )
    found = [value for line in lines for value in line.percentiles]
    steps = (1.0,) if max(found) > _WIDE * max(min(found), 1) else (1.0, 2.0, 5.0)  # powers of ten alone may be too few
    axes.xaxis.set_major_locator(LogLocator(subs=steps))


def _finish(axes: t.Any, lines: Sequence[Line], axis: Axis) -> None:
    axes.set_yticks(range(len(lines)), [line.label for line in reversed(lines)], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _position: axis.tell(value) if value > 0 else "0")
    axes.minorticks_off()
    axes.set_xlabel(axis.title)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _svg(figure: t.Any, described: str) -> str:
    file = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": described}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"\s*<(metadata|style|defs>\s*<style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sid="(?:figure|axes|patch|line2d|matplotlib\.axis|xtick|ytick|text|legend)[^"]*"', "", text)
    text = re.sub(r'style="([^"]*)"', lambda match: _attributes(match[1]), text)
    text = re.sub(r' (?:width|height)="[0-9.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg class="chart" role="img" aria-label="{_quoted(described)}" ', 1).strip()


def _attributes(style: str) -> str:
    """A style as classes for what the page colours, and as attributes for the rest."""
    classes, attributes = [], []
    for name, _colon, value in (part.strip().partition(":") for part in style.split(";") if part.strip()):
        value = value.strip()
        if value in _COLOURS:
            classes.append(f"{name}-{_COLOURS[value]}")
        elif name == "font":  # size and family; the family is that of the page
            attributes.append(f'font-size="{value.split("px")[0].split()[-1]}"')
        else:
            attributes.append(f'{name}="{_quoted(value)}"')
    return " ".join([*([f'class="{" ".join(classes)}"'] if classes else []), *attributes])


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
