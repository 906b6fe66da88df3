"""Splits of MSLS, and the rules of its published evaluation."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from vpr_dhe.datasets.msls.cities import SPLITS, TEST, TRAIN, cities_of
from vpr_dhe.errors import DatasetError

OFFICIAL = "official"
_ALL = "all"


@dataclass(frozen=True)
class Choice:
    """Cities to read and the variant of the rules; `split` is empty if cities were named."""

    split: str
    cities: tuple[str, ...]
    variant: str

    @property
    def is_test(self) -> bool:
        """Whether the ground truth of its cities is not public."""
        return self.cities[0] in TEST

    @property
    def by_subtask(self) -> bool:
        """Whether only images of the subtask `all` are used, as in the official code for val and test."""
        return self.variant == OFFICIAL and self.split != "train"

    @property
    def rules(self) -> str:
        """Rules in words."""
        rules = [*(["subtask all"] if self.by_subtask else []), *([] if self.is_test else ["panoramas dropped"])]
        return ", ".join(rules)


def choose(root: Path, split: str, variant: str) -> Choice:
    """Choose the cities of a split, or cities given by names, separated by commas.

    Raises:
        DatasetError: if split or variant are unknown, or cities cannot be read together.
    """
    if variant not in (OFFICIAL, _ALL):
        raise DatasetError(f"unknown variant {variant!r} of MSLS; expected {OFFICIAL} or {_ALL}")
    choice = Choice(split if split in SPLITS else "", _choose_cities(root, split), variant)
    if choice.is_test and variant == _ALL:
        raise DatasetError(
            f"found --variant {_ALL} for {', '.join(choice.cities)} of MSLS, which do not tell their panoramas; "
            f"expected {OFFICIAL}; leave --variant out"
        )
    return choice


def _choose_cities(root: Path, split: str) -> tuple[str, ...]:
    if split == "train":
        return _train_cities(root)
    if split in SPLITS:
        return SPLITS[split]
    cities = tuple(name.strip() for name in split.split(","))
    known = list(itertools.chain.from_iterable(SPLITS.values()))
    for city in cities:
        if city not in known:
            raise DatasetError(
                f"unknown split or city {city!r} of MSLS; expected train, val, test, or cities separated by commas: "
                f"{', '.join(known)}"
            )
    if len(set(cities)) < len(cities):
        raise DatasetError(f"--split {split} names a city more than once; name each city once")
    if len({city in TEST for city in cities}) > 1:
        raise DatasetError(
            f"--split {split} mixes cities of test, whose ground truth is not public, with others; read them apart"
        )
    return cities


def _train_cities(root: Path) -> tuple[str, ...]:
    # metadata.zip has the tables of all cities, so only the images show which ones were downloaded.
    cities = tuple(city for city in cities_of(root, "images") if city in TRAIN)
    if not cities:
        raise DatasetError(
            f"{root / 'train_val'} has no images of a train city; expected CITY/{{query,database}}/images for some of "
            f"{', '.join(TRAIN)}; extract images_vol_*.zip of MSLS into {root}, or choose another --split"
        )
    return cities
