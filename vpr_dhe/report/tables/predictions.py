"""Predictions of an evaluation in the file formats of other tools.

Each method has a folder with its name:

- `preds/<i>.txt`, one per query, in the format of VPR-methods-evaluation and its viewers;
- `pairs-kapture.txt`, lines of `query, map`, in the format of Patch-NetVLAD;
- `pairsfile-kapture.txt`, lines of `query, map, score`, in the format of kapture, with paths relative to the folder
  `records_data` of an image, if there is one;
- `pairs-hloc.txt`, lines of `query map`, for hloc's matchers;
- `msls.csv`, lines of `query_key map_key map_key ...`, for the evaluation and the challenge of Mapillary SLS;
- `per-query.csv`, the outcome of each query, and `precision-recall.csv`, the curve, if the ground truth is public.

Other paths in pairs are relative to the common folder of database and queries.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from vpr_dhe.datasets.base import PlaceDataset, PlaceSplit
from vpr_dhe.errors import BadInputError
from vpr_dhe.evaluation.place_evaluation import EvaluationResult, MethodResult
from vpr_dhe.evaluation.precision_recall import PrecisionRecall
from vpr_dhe.report.tables.text import csv_line

# Folder of the images of a kapture (github.com/naver/kapture, kapture_format.adoc).
_RECORDS = "records_data"


@dataclass(frozen=True)
class _Names:
    """Names of images in files that refer to both queries and database images."""

    queries: tuple[str, ...]
    database: tuple[str, ...]

    @classmethod
    def relative_to_both(cls, dataset: PlaceDataset) -> "_Names":
        """Paths relative to the common folder of database and queries."""
        folders = [split.folder.resolve() for split in (dataset.queries, dataset.database)]
        common = Path(os.path.commonpath(folders))
        return cls(_prefixed(dataset.queries, common), _prefixed(dataset.database, common))

    @classmethod
    def of_kapture(cls, dataset: PlaceDataset) -> "_Names":
        """Paths relative to the nearest `records_data` of each split or, without one, to the common folder."""
        known = cls.relative_to_both(dataset)
        queries, database = (_below_records(split) for split in (dataset.queries, dataset.database))
        return cls(queries or known.queries, database or known.database)

    @classmethod
    def keys(cls, dataset: PlaceDataset) -> "_Names":
        """File names without extension, which are Mapillary's keys."""
        return cls(*(tuple(PurePosixPath(r.path).stem for r in s.records) for s in (dataset.queries, dataset.database)))

    def blank(self) -> str | None:
        """Reason why these names cannot be separated by spaces; None if they can."""
        name = next((name for name in (*self.queries, *self.database) if len(name.split()) != 1), None)
        return None if name is None else f"{name!r} contains a blank"

    def comma(self) -> str | None:
        """Reason why these names cannot be separated by commas; None if they can."""
        name = next((name for name in (*self.queries, *self.database) if "," in name), None)
        return None if name is None else f"{name!r} contains a comma"

    def doubled(self) -> str | None:
        """Reason why these names are ambiguous; None if they are not."""
        unique = all(len(set(names)) == len(names) for names in (self.queries, self.database))
        return None if unique else "several images have the same file name"


def _below_records(split: PlaceSplit) -> tuple[str, ...] | None:
    folders = [split.folder.absolute(), *split.folder.absolute().parents]
    records = next((folder for folder in folders if folder.name == _RECORDS), None)
    if records is None:
        return None
    prefix = PurePosixPath(split.folder.absolute().relative_to(records).as_posix())
    return tuple((prefix / record.path).as_posix() for record in split.records)


def _prefixed(split: PlaceSplit, common: Path) -> tuple[str, ...]:
    prefix = PurePosixPath(split.folder.resolve().relative_to(common).as_posix())
    return tuple((prefix / record.path).as_posix() for record in split.records)


def require_new_folder(folder: Path) -> None:
    """Raise BadInputError unless a folder is empty, or can be created."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{folder} exists and is not empty; give the name of a new folder for the predictions")
    if not folder.absolute().parent.is_dir():
        raise BadInputError(f"the parent folder of {folder} does not exist; give a folder in an existing one")


def write_predictions(result: EvaluationResult, folder: Path) -> list[str]:
    """Write all files of all methods, and return one sentence for each kind that could not be written.

    Raises:
        BadInputError: if the folder is not empty.
    """
    require_new_folder(folder)
    paths, keys = _Names.relative_to_both(result.dataset), _Names.keys(result.dataset)
    records = _Names.of_kapture(result.dataset)
    obstacles = {
        "pairs-kapture.txt": paths.comma(),
        "pairsfile-kapture.txt": records.comma(),
        "pairs-hloc.txt": paths.blank(),
        "msls.csv": keys.blank() or keys.doubled(),
    }
    for method in result.methods:
        target = folder / method.name
        (target / "preds").mkdir(parents=True)
        _write_texts(result.dataset, method, target / "preds")
        if obstacles["pairs-kapture.txt"] is None:
            _write_lines(target / "pairs-kapture.txt", _kapture_lines(paths, method))
        if obstacles["pairsfile-kapture.txt"] is None:
            _write_lines(target / "pairsfile-kapture.txt", _scored_kapture_lines(records, method))
        if obstacles["pairs-hloc.txt"] is None:
            _write_lines(target / "pairs-hloc.txt", _pairs(paths, method, " "))
        if obstacles["msls.csv"] is None:
            _write_lines(target / "msls.csv", _msls_lines(keys, method))
        _write_tables(result.dataset, method, target)
    notes = [f"{name} was not written: {reason}" for name, reason in obstacles.items() if reason is not None]
    unread = [image.path for image in result.unreadable_queries]
    if unread:
        notes.append(f"files of pairs and keys lack {len(unread)} unreadable queries, such as {unread[0]}")
    return notes


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{line}\n" for line in lines)


def _write_texts(dataset: PlaceDataset, method: MethodResult, folder: Path) -> None:
    database = [str(dataset.database.folder / record.path) for record in dataset.database.records]
    for query, (record, predictions) in enumerate(zip(dataset.queries.records, method.predictions, strict=True)):
        lines = ["Query path:", str(dataset.queries.folder / record.path), ""]
        lines += ["Predictions paths:", *(database[prediction.row] for prediction in predictions), ""]
        if dataset.positives is not None:
            lines += ["Positives paths:", *(database[row] for row in dataset.positives[query]), ""]
        _write_lines(folder / f"{query:03d}.txt", iter(lines))


def _pairs(names: _Names, method: MethodResult, separator: str) -> Iterator[str]:
    for query, image, _ in _ranked(names, method):
        yield f"{query}{separator}{image}"


def _ranked(names: _Names, method: MethodResult) -> Iterator[tuple[str, str, float]]:
    for query, predictions in zip(names.queries, method.predictions, strict=True):
        for prediction in predictions:
            yield query, names.database[prediction.row], prediction.score


def _kapture_lines(names: _Names, method: MethodResult) -> Iterator[str]:
    yield "# kapture format: 1.0"
    yield "# query_image, map_image"
    yield from _pairs(names, method, ", ")


def _scored_kapture_lines(names: _Names, method: MethodResult) -> Iterator[str]:
    yield "# kapture format: 1.1"
    yield "# query_image, map_image, score"
    for query, image, score in _ranked(names, method):
        yield f"{query}, {image}, {score:.6g}"


def _msls_lines(keys: _Names, method: MethodResult) -> Iterator[str]:
    yield "# query_key followed by map_keys, best first"
    for query, predictions in zip(keys.queries, method.predictions, strict=True):
        if predictions:
            yield " ".join([query, *(keys.database[prediction.row] for prediction in predictions)])


def _write_tables(dataset: PlaceDataset, method: MethodResult, folder: Path) -> None:
    if dataset.positives is None:
        return
    header = ["query", "positives", "rank_of_first_positive", "best_match", "score", "right"]
    _write_csv(folder / "per-query.csv", header, _per_query(dataset, method))
    curve = method.scores.precision_recall if method.scores else None
    if curve:
        _write_csv(folder / "precision-recall.csv", ["threshold", "precision", "recall"], _points(curve))


def _per_query(dataset: PlaceDataset, method: MethodResult) -> Iterator[Sequence[object]]:
    assert dataset.positives is not None
    rows = zip(dataset.queries.records, dataset.positives, method.predictions, strict=True)
    for record, positives, predictions in rows:
        right = np.isin([prediction.row for prediction in predictions], positives)
        first = int(np.argmax(right)) + 1 if right.any() else ""
        best = predictions[0] if predictions else None
        name = dataset.database.records[best.row].path if best else ""
        score = f"{best.score:.6g}" if best else ""
        yield record.path, len(positives), first, name, score, int(first == 1)


def _points(curve: PrecisionRecall) -> Iterator[Sequence[object]]:
    for threshold, precision, recall in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
        yield f"{threshold:.6g}", f"{precision:.4f}", f"{recall:.4f}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(f"{csv_line(cells)}\n" for cells in (header, *rows))
