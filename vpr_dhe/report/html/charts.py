"""Line charts as inline SVG, coloured by the page's style sheet, without scripts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from markupsafe import Markup, escape

from vpr_dhe.runtime.sampling import evenly_spread

_WIDTH, _HEIGHT = 480.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 16.0, 44.0
_STEPS = (2.0, 5.0, 10.0, 20.0)
_MAX_STEPS = 6
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


@dataclass(frozen=True)
class _Scale:
    """A y axis in percent, from `first` to 100, with a grid line every `step`."""

    first: float
    step: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> "_Scale":
        """Narrowest scale with at most six steps that contains the curves."""
        lowest = min((min(curve.y) for curve in curves if len(curve.y)), default=0.0)
        for step in _STEPS:
            first = min(math.floor(lowest / step) * step, 100 - step)
            if 100 - first <= _MAX_STEPS * step:
                return cls(first, step)
        return cls(0.0, _STEPS[-1])

    def y(self, percent: float) -> float:
        """Height of a value in the picture."""
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (percent - self.first) / (100 - self.first)

    @property
    def ticks(self) -> Float64[np.ndarray, " ticks"]:
        """Values of the grid lines."""
        return np.arange(self.first, 100 + self.step / 2, self.step)


def line_chart(title: str, x_axis: Axis, y_label: str, curves: Sequence[Curve]) -> Chart:
    """Render curves over a y axis from just below the lowest value to 100 %."""
    scale = _Scale.of(curves)
    lines = (_line(number, curve, x_axis, scale) for number, curve in enumerate(curves))
    parts = [_grid(x_axis, y_label, scale), *lines]
    summary = "; ".join(f"{curve.name} from {curve.y[0]:.1f} to {curve.y[-1]:.1f} %" for curve in curves)
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, _HEIGHT, f"{title}: {summary}"
    )
    return Chart(title, opening + Markup("").join(parts) + Markup("</svg>"), tuple(curve.name for curve in curves))


def _grid(x_axis: Axis, y_label: str, scale: _Scale) -> Markup:
    lines: list[Markup] = []
    for percent in scale.ticks.tolist():
        y = scale.y(percent)
        lines.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(_LEFT, y, _end(), y))
        lines.append(_text(_LEFT - 9, y + 4, f"{percent:.0f}", "end"))
    lines += [_text(_x(value, x_axis), _HEIGHT - _BOTTOM + 16, f"{value:g}", "middle") for value in x_axis.ticks]
    lines.append(_text((_LEFT + _end()) / 2, _HEIGHT - 6, x_axis.label, "middle"))
    lines.append(
        Markup('<text transform="translate(16 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            (_TOP + _HEIGHT - _BOTTOM) / 2, y_label
        )
    )
    return Markup("").join(lines)


def _line(number: int, curve: Curve, x_axis: Axis, scale: _Scale) -> Markup:
    chosen = evenly_spread(len(curve.x), _MAX_POINTS)
    points = " ".join(f"{_x(curve.x[row], x_axis):.1f},{scale.y(curve.y[row]):.1f}" for row in chosen)
    line = Markup('<polyline class="curve series-{}" points="{}"><title>{}</title></polyline>').format(
        number, points, curve.name
    )
    return line + Markup("").join(_marks(number, curve, x_axis, scale))


def _marks(number: int, curve: Curve, x_axis: Axis, scale: _Scale) -> Iterator[Markup]:
    """Dots at the ticks, with their values as tooltips."""
    for tick in x_axis.ticks:
        if tick in curve.x:
            value = curve.y[curve.x.index(tick)]
            yield Markup(
                '<circle class="mark series-{}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
            ).format(number, _x(tick, x_axis), scale.y(value), f"{curve.name}, {x_axis.label} {tick:g}: {value:.1f} %")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')


def _x(value: float, axis: Axis) -> float:
    return _LEFT + (_end() - _LEFT) * (value - axis.first) / ((axis.last - axis.first) or 1.0)


def _end() -> float:
    return _WIDTH - _RIGHT
