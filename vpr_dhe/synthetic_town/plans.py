"""Plans of the town's surfaces: sizes, materials and styles.

All sizes are in metres.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Colour: TypeAlias = tuple[int, int, int]

SIGN_COLOURS: tuple[Colour, ...] = (
    (150, 30, 34), (24, 74, 50), (28, 46, 104), (225, 178, 40), (60, 30, 60), (228, 226, 214), (30, 30, 32),
    (200, 96, 30), (40, 120, 130),
)  # fmt: skip


@dataclass(frozen=True)
class StreetStyle:
    """Style of a street: materials and sizes of its buildings, and its paving."""

    materials: tuple[str, ...]
    colours: tuple[Colour, ...]
    windows: tuple[str, ...]
    floors: tuple[int, int]
    building_width_m: tuple[float, float]
    shop_share: float
    gable_share: float
    paving: str
    marking: str


STYLES = (
    StreetStyle(
        ("plaster", "plaster", "stone"),
        ((214, 190, 140), (196, 140, 110), (176, 190, 178), (222, 206, 186), (150, 168, 186), (206, 160, 150)),
        ("casement", "sash", "arched"), (2, 4), (6.5, 10.0), 0.6, 0.35, "cobbles", "none",
    ),
    StreetStyle(
        ("brick",), ((150, 74, 58), (128, 62, 52), (166, 92, 70), (140, 86, 74)),
        ("sash", "grid"), (2, 3), (5.5, 8.0), 0.25, 0.2, "asphalt", "dashes",
    ),
    StreetStyle(
        ("stone", "stone", "plaster"), ((196, 186, 164), (178, 174, 166), (210, 200, 180), (188, 170, 140)),
        ("arched", "casement"), (3, 5), (9.0, 14.0), 0.5, 0.0, "asphalt", "double",
    ),
    StreetStyle(
        ("panels", "plaster", "brick"),
        ((190, 194, 196), (150, 158, 164), (206, 204, 196), (120, 126, 136), (170, 110, 84)),
        ("wide", "grid"), (2, 4), (10.0, 15.0), 0.45, 0.0, "asphalt", "dashes",
    ),
    StreetStyle(
        ("boards", "boards", "plaster"),
        ((120, 152, 170), (186, 96, 80), (226, 214, 170), (118, 148, 110), (230, 228, 222)),
        ("sash", "casement"), (1, 3), (6.0, 9.0), 0.35, 0.6, "asphalt", "none",
    ),
    StreetStyle(
        ("brick", "stone"), ((198, 170, 112), (184, 150, 104), (206, 184, 140), (160, 128, 100)),
        ("grid", "arched", "wide"), (2, 4), (7.0, 12.0), 0.3, 0.15, "cobbles", "none",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class FrontPlan:
    """Plan of a building front of width_m x (eaves_m + gable_m)."""

    width_m: float
    gable_m: float
    floors: int
    floor_m: float
    ground_floor_m: float
    material: str
    colour: Colour
    trim: Colour
    accent: Colour
    window: str
    window_width_m: float
    window_height_m: float
    column_pitch_m: float
    ground_floor: str
    mansard_m: float

    @property
    def eaves_m(self) -> float:
        """Height of the front without its gable."""
        return self.ground_floor_m + (self.floors - 1) * self.floor_m + 0.6 + self.mansard_m

    @property
    def height_m(self) -> float:
        """Height of the front with its gable."""
        return self.eaves_m + self.gable_m

    @property
    def column_centres_m(self) -> list[float]:
        """Centres of the columns of windows, from the left."""
        count = max(int((self.width_m - 0.7) / self.column_pitch_m), 1)
        pitch_m = min(self.column_pitch_m, self.width_m / count)
        first_m = self.width_m / 2 - pitch_m * (count - 1) / 2
        return [first_m + pitch_m * column for column in range(count)]

    @classmethod
    def sample(cls, rng: np.random.Generator, style: StreetStyle, width_m: float) -> "FrontPlan":
        """Draw a building of a style at random."""
        wide = rng.random() < 0.25
        gable_m = rng.uniform(0.22, 0.38) * width_m if rng.random() < style.gable_share else 0.0
        ground_floor = (
            "shop" if rng.random() < style.shop_share else str(rng.choice(["home", "home", "home", "garage"]))
        )
        window = str(rng.choice(style.windows))
        window_width_m = rng.uniform(1.5, 2.3) if window == "wide" else rng.uniform(0.85, 1.3)
        return cls(
            width_m=width_m,
            gable_m=gable_m,
            floors=int(rng.integers(style.floors[0], style.floors[1] + 1)),
            floor_m=rng.uniform(2.9, 3.5),
            ground_floor_m=rng.uniform(3.3, 4.2),
            material=str(rng.choice(style.materials)),
            colour=vary(style.colours[rng.integers(len(style.colours))], rng, 14.0),
            trim=vary(((236, 232, 222), (206, 196, 176), (90, 84, 80))[rng.choice(3, p=[0.6, 0.25, 0.15])], rng, 8.0),
            accent=vary(SIGN_COLOURS[rng.integers(len(SIGN_COLOURS))], rng, 12.0),
            window=window,
            window_width_m=window_width_m,
            window_height_m=rng.uniform(1.3, 2.0),
            column_pitch_m=window_width_m + (rng.uniform(0.7, 1.1) if wide else rng.uniform(0.9, 1.7)),
            ground_floor=ground_floor,
            mansard_m=rng.uniform(1.8, 2.4) if gable_m == 0 and rng.random() < 0.25 else 0.0,
        )


@dataclass(frozen=True)
class PlainPlan:
    """Plan of a bare wall, sometimes with a faded advertisement, or of a roof plane."""

    width_m: float
    height_m: float
    material: str
    colour: Colour
    may_advertise: bool


@dataclass(frozen=True)
class RoadPlan:
    """Plan of a stretch of street: length along the texture's x axis, pavements at the top and bottom."""

    length_m: float
    width_m: float
    pavement_m: float
    paving: str
    marking: str
    zebra: tuple[bool, bool]


@dataclass(frozen=True)
class CrossingPlan:
    """Plan of a crossing: carriageway with a square of pavement in each corner."""

    width_m: float
    height_m: float
    pavement_x_m: float
    pavement_y_m: float


Plan: TypeAlias = FrontPlan | PlainPlan | RoadPlan | CrossingPlan


def vary(colour: Colour, rng: np.random.Generator, spread: float) -> Colour:
    """Vary the brightness and hue of a colour a little."""
    shifted = np.array(colour) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    red, green, blue = np.clip(shifted, 0, 255).astype(int).tolist()
    return red, green, blue
