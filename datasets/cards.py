"""Cards of data sets, read from TOML and checked against the schema in README.md."""

import tomllib
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

HERE = Path(__file__).resolve().parent
PAIR_LAYOUTS, TRAINING_LAYOUTS = ("hpatches",), ("gsv-cities",)
LAYOUTS = ("vpr", "msls", "folders", *PAIR_LAYOUTS, *TRAINING_LAYOUTS)
CITY = "{city}"
_Row = TypeVar("_Row")


class CardError(Exception):
    """Missing or invalid card."""


@dataclass(frozen=True)
class Split:
    """Folders of database and queries, and their numbers of images in the published data set.

    `positions` says whether file names, or the tables of layout msls, contain positions; `cities` are the values of
    `{city}` in the folders; `sequences` is the number of folders of a homography data set, which has neither.
    """

    name: str
    source: str
    database: str | None = None
    queries: str | None = None
    database_images: int | None = None
    query_images: int | None = None
    positions: bool = False
    cities: tuple[str, ...] = ()
    sequences: int | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of database and queries, for each city if there are several."""
        patterns = [pattern for pattern in (self.database, self.queries) if pattern is not None]
        return tuple(pattern.replace(CITY, city) for pattern in patterns for city in self.cities or ("",))

    @property
    def summary(self) -> str:
        """Counts in words."""
        if self.sequences is not None:
            return f"{self.sequences:,} sequences"
        if self.database_images is None and self.query_images is None:
            return "of any size"
        return f"{_count(self.database_images)} in the database, {_count(self.query_images)} queries"


@dataclass(frozen=True)
class Variant:
    """Evaluation protocol: queries, rule for positives, and the options of the card's command."""

    name: str
    meaning: str
    split: str
    source: str
    options: str | None = None
    queries: int | None = None


@dataclass(frozen=True)
class Published:
    """Published recall in percent, with its source."""

    method: str
    protocol: str
    recall_at_1: float
    source: str
    recall_at_5: float | None = None
    recall_at_10: float | None = None


@dataclass(frozen=True)
class Card:
    """Card of a data set; `layout` is the reader for most of its protocols."""

    name: str
    title: str
    page: str
    obtain: str
    terms: str
    layout: str
    tree: str
    split: tuple[Split, ...]
    protocol: tuple[Variant, ...]
    published: tuple[Published, ...] = ()
    utm_zone: str | None = None

    @property
    def command(self) -> str:
        """Subcommand of `vpr-dhe` for the options of its protocols."""
        if self.layout in TRAINING_LAYOUTS:
            return "train descriptor"
        return "evaluate-pairs" if self.layout in PAIR_LAYOUTS else "evaluate"

    def split_named(self, name: str) -> Split:
        """The split of that name.

        Raises:
            CardError: if there is none.
        """
        for split in self.split:
            if split.name == name:
                return split
        known = ", ".join(split.name for split in self.split)
        raise CardError(f"{self.name} has no split {name!r}; it has {known}")


def card_paths() -> list[Path]:
    """Paths of the cards next to this file, by name."""
    return sorted(HERE.glob("*.toml"))


def find_card(name: str) -> Path:
    """The path of the card of that name.

    Raises:
        CardError: if there is none.
    """
    for path in card_paths():
        if path.stem == name:
            return path
    raise CardError(f"no card {name!r}; there are {', '.join(path.stem for path in card_paths())}")


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        CardError: if it cannot be read or is invalid.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"card {path} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"card {path} is not TOML ({error})") from None
    rows = {"split": Split, "protocol": Variant, "published": Published}
    for key, kind in rows.items():
        found = table.get(key, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise CardError(f"card {path}: {key} is no list of tables; write [[{key}]] above each")
        table[key] = tuple(
            _build(kind, row, f"card {path}, [[{key}]] {number + 1}") for number, row in enumerate(found)
        )
    card = _build(Card, table, f"card {path}")
    for complaint in _complaints(card):
        raise CardError(f"card {path}: {complaint}")
    return card


def _build(kind: type[_Row], table: dict[str, Any], where: str) -> _Row:
    """Make a record from a table whose keys are the record's fields."""
    hints = get_type_hints(kind)
    unknown = sorted(table.keys() - hints.keys())
    if unknown:
        raise CardError(f"{where} has a key {unknown[0]!r}; expected {', '.join(hints)}")
    for field in fields(kind):  # type: ignore[arg-type]
        if field.default is MISSING and field.name not in table:
            raise CardError(f"{where} has no {field.name}")
    return kind(**{key: _typed(value, hints[key], f"{where}: {key}") for key, value in table.items()})


def _typed(value: object, hint: Any, where: str) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise CardError(f"{where} is {value!r}; expected a list")
        return tuple(_typed(item, get_args(hint)[0], where) for item in value)
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    # In Python, True is an integer.
    if isinstance(value, bool) and bool not in kinds:
        raise CardError(f"{where} is {value!r}; expected {_words(kinds)}")
    if isinstance(value, int) and float in kinds:
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, str) and not value.strip()):
        raise CardError(f"{where} is {value!r}; expected {_words(kinds)}")
    return value


def _words(kinds: Sequence[type]) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return " or ".join(words.get(kind, kind.__name__) for kind in kinds if kind is not types.NoneType)


def _complaints(card: Card) -> Iterator[str]:
    """Yield the faults of a card with valid keys and types."""
    if card.layout not in LAYOUTS:
        yield f"layout {card.layout!r}; expected one of {', '.join(LAYOUTS)}"
    yield from _repetitions("split", [split.name for split in card.split])
    yield from _repetitions("protocol", [variant.name for variant in card.protocol])
    for split in card.split:
        yield from _split_complaints(split, has_queries=card.layout not in TRAINING_LAYOUTS)
    for variant in card.protocol:
        if variant.split not in {split.name for split in card.split}:
            yield f"protocol {variant.name} names split {variant.split!r}, which is not there"
        if variant.queries is not None and variant.queries < 1:
            yield f"protocol {variant.name} has {variant.queries} queries; expected at least one"
    for row in card.published:
        if row.protocol not in {variant.name for variant in card.protocol}:
            yield f"{row.method} was published for protocol {row.protocol!r}, which is not there"
        for recall in (row.recall_at_1, row.recall_at_5, row.recall_at_10):
            if recall is not None and not 0 <= recall <= 100:
                yield f"{row.method} has a recall of {recall}; expected percent"


def _split_complaints(split: Split, *, has_queries: bool) -> Iterator[str]:
    counts = split.database_images, split.query_images, split.sequences
    if any(count is not None and count < 1 for count in counts):
        yield f"split {split.name} has the counts {counts}; expected at least one"
    if has_queries and split.sequences is None and None in (split.database, split.queries):
        yield f"split {split.name} has neither sequences nor both database and queries"
    if any((CITY in folder) != bool(split.cities) for folder in (split.database, split.queries) if folder):
        yield f"split {split.name} names cities without {CITY} in its folders, or the other way round"


def _repetitions(kind: str, names: Sequence[str]) -> Iterator[str]:
    if not names:
        yield f"there is no [[{kind}]]; expected at least one"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{kind} {name} is there twice"


def _count(images: int | None) -> str:
    return "unknown" if images is None else f"{images:,}"
