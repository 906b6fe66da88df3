"""Sources of training pairs, opened by name: place data sets, folders of images, and generated towns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpr_dhe.datasets import LAYOUTS, PlaceDataset, Protocol
from vpr_dhe.datasets.gsv_cities import IMAGES_PER_PLACE, is_gsv_cities, read_gsv_cities
from vpr_dhe.errors import BadInputError, DatasetError
from vpr_dhe.images.listing import list_images
from vpr_dhe.records import Size
from vpr_dhe.runtime.choices import SYNTHETIC_TOWN
from vpr_dhe.training.sources.base import JoinedPairs, PairSource, SomePairs, hold_out
from vpr_dhe.training.sources.gsv_cities import PlaceImages
from vpr_dhe.training.sources.positives import POSITIVE_RADIUS_M, PositivePairs
from vpr_dhe.training.sources.town import TownPairs
from vpr_dhe.training.sources.warps import WarpedImages

# Towns of seeds from 1000 to 1002 are held out by benchmarks/splits.toml.
_TOWN_SEEDS, _VALIDATION_TOWN_SEEDS = range(3000, 3004), range(2000, 2001)
_TOWN_PAIRS = 2000


@dataclass(frozen=True)
class TrainingData:
    """Pairs for training and validation.

    Args:
        warps: pairs with known homographies.
        positives: pairs of images of one place, if the data include a place data set; otherwise the same as `warps`.
        validation: held-out positives, or warps of held-out images.
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
    """Open folders of images, place data sets in any layout that `evaluate` reads, GSV-Cities, and generated towns.

    Args:
        names: paths of folders, or `synthetic-town`.
        view_size: size of warped images, the input size of the network.
        protocol: protocol of the positives of place data sets. By default, layouts with splits use `train` and 10 m;
            the others have their own rules, as in `evaluate`.
        images_per_place: images per group of a place of GSV-Cities; places with fewer are dropped.
        textures: folder of photos of facades for generated towns; by default, facades are painted.

    Raises:
        DatasetError: if a folder is missing, has an unexpected layout, or contains too few images.
        BadInputError: if a layout does not support an option of the protocol, or if there are textures and no town.
    """
    if textures is not None and SYNTHETIC_TOWN not in names:
        raise BadInputError(f"photos of facades are for {SYNTHETIC_TOWN}, which is not among the data; add it")
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


def open_images(folders: Sequence[Path], view_size: Size) -> tuple[PairSource, PairSource]:
    """Open warped views of the images of folders, and of held-out images.

    Raises:
        DatasetError: if a folder is missing or contains fewer than two images.
    """
    sources = []
    for folder in folders:
        photos = [folder / path for path in list_images(folder)]
        sources.append(_held_out(WarpedImages(photos, view_size, f"{len(photos)} photos of {folder.resolve().name}")))
    return JoinedPairs([training for training, _ in sources]), JoinedPairs([validation for _, validation in sources])


def _open_town(textures: Path | None) -> _Opened:
    photos = [] if textures is None else [textures / path for path in list_images(textures)]
    # Towns for validation also have other facades.
    training, validation = hold_out(photos)
    if textures is not None and not training:
        raise DatasetError(f"{textures}: expected at least 2 photos of facades, found {len(photos)}")
    return _Opened(
        TownPairs(_TOWN_SEEDS, _TOWN_PAIRS, training), None, TownPairs(_VALIDATION_TOWN_SEEDS, _TOWN_PAIRS, validation)
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
        warps = WarpedImages(photos, view_size, f"{len(photos)} photos of {root.resolve().name}")
        training, validation = _held_out(warps)
        return _Opened(training, None, validation)
    # Without queries, so that held-out ones remain unseen.
    photos = [dataset.database.folder / record.path for record in dataset.database.records]
    warps = WarpedImages(photos, view_size, f"{len(photos)} photos of {dataset.name}")
    training, validation = _held_out(PositivePairs(dataset))
    return _Opened(warps, training, validation)


def _open_gsv_cities(root: Path, view_size: Size, images_per_place: int) -> _Opened:
    places, name = read_gsv_cities(root, images_per_place), root.resolve().name
    training, validation = _held_out(PlaceImages(name, places, images_per_place))
    # Of the places to train on, so that held-out ones remain unseen.
    photos = [path for place in hold_out(places)[0] for path in place.images]
    return _Opened(WarpedImages(photos, view_size, f"{len(photos)} photos of {name}"), training, validation)


def _held_out(source: PairSource) -> tuple[PairSource, PairSource]:
    """Split a source: every tenth pair for validation, the others for training."""
    training, validation = hold_out(range(len(source)))
    if not training:
        raise DatasetError(f"{source.description}: at least two are needed, one for training and one for validation")
    return SomePairs(source, training), SomePairs(source, validation)


def read_training_places(root: Path, protocol: Protocol) -> PlaceDataset | None:
    """Read a place data set as `open_training_data` does; None for a folder in no known layout."""
    layout = next((layout for layout in LAYOUTS.values() if layout.recognises(root)), None)
    if layout is None:
        return None
    layout.require_taken(protocol)
    split = protocol.split or ("train" if "split" in layout.options else None)
    usual_m = POSITIVE_RADIUS_M if "split" in layout.options else None
    radius_m = usual_m if protocol.radius_m is None else protocol.radius_m
    return layout.read(root, replace(protocol, split=split, radius_m=radius_m))
