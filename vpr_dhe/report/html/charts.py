"""Line charts as inline SVG, coloured by the page's style sheet, without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from vpr_dhe.runtime.sampling import evenly_spread

_WIDTH, _HEIGHT = 480.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 16.0, 44.0
_GRID_STEPS = 5
# Points drawn per curve.
_MAX_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """One line of a chart; `y` in percent."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """An x axis: label, range and the values of its ticks."""

    label: str
    first: float
    last: float
    ticks: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """A rendered chart; `names` are those of its curves, in the order of their styles."""

    title: str
    svg: Markup
    names: tuple[str, ...]


def line_chart(title: str, x_axis: Axis, y_label: str, curves: Sequence[Curve]) -> Chart:
    """Render curves over a y axis from 0 to 100 %."""
    parts = [_grid(x_axis, y_label), *(_line(number, curve, x_axis) for number, curve in enumerate(curves))]
    summary = "; ".join(f"{curve.name} from {curve.y[0]:.1f} to {curve.y[-1]:.1f} %" for curve in curves)
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, _HEIGHT, f"{title}: {summary}"
    )
    return Chart(title, opening + Markup("").join(parts) + Markup("</svg>"), tuple(curve.name for curve in curves))


def _grid(x_axis: Axis, y_label: str) -> Markup:
    lines: list[Markup] = []
    for percent in np.linspace(0, 100, _GRID_STEPS + 1):
        y = _y(percent)
        lines.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _end(), y))
        lines.append(_text(_LEFT - 6, y + 4, f"{percent:.0f}", "end"))
    lines += [_text(_x(value, x_axis), _HEIGHT - _BOTTOM + 16, f"{value:g}", "middle") for value in x_axis.ticks]
    lines.append(_text((_LEFT + _end()) / 2, _HEIGHT - 6, x_axis.label, "middle"))
    lines.append(
        Markup('<text transform="translate(16 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            _y(50.0), y_label
        )
    )
    return Markup("").join(lines)


def _line(number: int, curve: Curve, x_axis: Axis) -> Markup:
    chosen = evenly_spread(len(curve.x), _MAX_POINTS)
    points = " ".join(f"{_x(curve.x[row], x_axis):.1f},{_y(curve.y[row]):.1f}" for row in chosen)
    return Markup('<polyline class="curve series-{}" points="{}"><title>{}</title></polyline>').format(
        number, points, curve.name
    )


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')


def _x(value: float, axis: Axis) -> float:
    return _LEFT + (_end() - _LEFT) * (value - axis.first) / ((axis.last - axis.first) or 1.0)


def _y(percent: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * percent / 100


def _end() -> float:
    return _WIDTH - _RIGHT
