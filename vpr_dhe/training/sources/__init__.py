"""Sources of training pairs, opened by name: place data sets, folders of photos, and generated towns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.datasets import LAYOUTS, PlaceDataset, Protocol
from vpr_dhe.datasets.gsv_cities import IMAGES_PER_PLACE, is_gsv_cities, read_gsv_cities
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.images import list_images
from vpr_dhe.records import Size
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, SomePairs, hold_out
from vpr_dhe.training.sources.gsv_cities import PlacePhotos
from vpr_dhe.training.sources.positives import RADIUS_M, PositivePairs
from vpr_dhe.training.sources.town import TownPairs
from vpr_dhe.training.sources.warps import WarpedPhotos

# Towns of seeds from 1000 to 1002 are held out by benchmarks/splits.toml.
_TOWN_SEEDS, _VALIDATION_TOWN_SEEDS = range(3000, 3004), range(2000, 2001)
_TOWN_PAIRS = 2000


@dataclass(frozen=True)
class TrainingData:
    """Pairs to train on and to validate with.

    Args:
        warps: pairs with known homographies.
        positives: pairs of photographs of one place, if the data include a place data set; otherwise the same as
            `warps`.
        validation: held-out positives, or warps of held-out photos.
    """

    warps: PairSource
    positives: PairSource
    validation: PairSource


@dataclass(frozen=True)
class _Opened:
    warps: PairSource
    positives: PairSource | None
    validation: PairSource


def open_training_data(
    names: Sequence[str],
    view_size: Size,
    protocol: Protocol | None = None,
    images_per_place: int = IMAGES_PER_PLACE,
    textures: Path | None = None,
) -> TrainingData:
    """Open folders of photos, place data sets in any layout that `evaluate` reads, GSV-Cities, and generated towns.

    Args:
        names: paths of folders, or `synthetic-town`.
        view_size: the network's input, the size of warped photos.
        protocol: defines the positives of place data sets. By default, layouts with splits use `train` and 10 m; the
            others have their own rules, as in `evaluate`.
        images_per_place: photos of a place of GSV-Cities in a group; places with fewer are left out.
        textures: folder of photos of facades for the fronts of generated towns, which are painted otherwise.

    Raises:
        DatasetError: if a folder is missing, has an unexpected layout, or holds too little.
        BadInputError: if a layout does not support an option of the protocol, or if there are textures and no town.
    """
    if textures is not None and SYNTHETIC_TOWN not in names:
        raise BadInputError(f"photos of fronts are for {SYNTHETIC_TOWN}, which is not among the data; add it")
    opened = [
        _open_town(textures)
        if name == SYNTHETIC_TOWN
        else _open(name, view_size, protocol or Protocol(), images_per_place)
        for name in names
    ]
    warps = JoinedPairs([data.warps for data in opened])
    positives = [data.positives for data in opened if data.positives is not None]
    held_out = [data.validation for data in opened if (data.positives is not None) == bool(positives)]
    return TrainingData(warps, JoinedPairs(positives) if positives else warps, JoinedPairs(held_out))


def open_photos(folders: Sequence[Path], view_size: Size) -> tuple[PairSource, PairSource]:
    """Warped views of the photos of folders, and those of held-out photos.

    Raises:
        DatasetError: if a folder is missing or holds fewer than two photos.
    """
    sources = []
    for folder in folders:
        photos = [folder / path for path in list_images(folder)]
        sources.append(_held_out(WarpedPhotos(photos, view_size, f"{len(photos)} photos of {folder.resolve().name}")))
    return JoinedPairs([learned for learned, _ in sources]), JoinedPairs([kept for _, kept in sources])


def _open_town(textures: Path | None) -> _Opened:
    photos = [] if textures is None else [textures / path for path in list_images(textures)]
    # Towns to validate with have other fronts, too.
    learned, kept = hold_out(photos)
    if textures is not None and not learned:
        raise DatasetError(f"{textures}: expected at least 2 photos of fronts, found {len(photos)}")
    return _Opened(
        TownPairs(_TOWN_SEEDS, _TOWN_PAIRS, learned), None, TownPairs(_VALIDATION_TOWN_SEEDS, _TOWN_PAIRS, kept)
    )


def _open(name: str, view_size: Size, protocol: Protocol, images_per_place: int) -> _Opened:
    root = Path(name)
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise DatasetError(f"{root} {found}; expected a folder of photos or of a data set, or {SYNTHETIC_TOWN!r}")
    if is_gsv_cities(root):
        return _open_gsv_cities(root, view_size, images_per_place)
    dataset = read_training_places(root, protocol)
    if dataset is None:
        photos = [root / path for path in list_images(root)]
        learned, kept = _held_out(WarpedPhotos(photos, view_size, f"{len(photos)} photos of {root.resolve().name}"))
        return _Opened(learned, None, kept)
    # Without queries, so that held-out ones remain unseen.
    photos = [dataset.database.folder / record.path for record in dataset.database.records]
    warps = WarpedPhotos(photos, view_size, f"{len(photos)} photos of {dataset.name}")
    learned, kept = _held_out(PositivePairs(dataset))
    return _Opened(warps, learned, kept)


def _open_gsv_cities(root: Path, view_size: Size, images_per_place: int) -> _Opened:
    places, name = read_gsv_cities(root, images_per_place), root.resolve().name
    photos = [path for place in places for path in place.images]
    learned, kept = _held_out(PlacePhotos(name, places, images_per_place))
    return _Opened(WarpedPhotos(photos, view_size, f"{len(photos)} photos of {name}"), learned, kept)


def _held_out(source: PairSource) -> tuple[PairSource, PairSource]:
    """Split a source: every tenth pair for validation, the others for training."""
    learned, kept = hold_out(range(len(source)))
    if not learned:
        raise DatasetError(f"{source.description}: at least two are needed, one to learn from and one to validate with")
    return SomePairs(source, learned), SomePairs(source, kept)


def read_training_places(root: Path, protocol: Protocol) -> PlaceDataset | None:
    """Read a place data set as `open_training_data` does; None for a folder in no known layout."""
    layout = next((layout for layout in LAYOUTS.values() if layout.recognises(root)), None)
    if layout is None:
        return None
    layout.require_taken(protocol)
    split = protocol.split or ("train" if "split" in layout.options else None)
    usual_m = RADIUS_M if "split" in layout.options else None
    radius_m = usual_m if protocol.radius_m is None else protocol.radius_m
    return layout.read(root, replace(protocol, split=split, radius_m=radius_m))
