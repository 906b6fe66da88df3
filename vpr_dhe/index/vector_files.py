"""FAISS files of an index: built where too few vectors are in one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from vpr_dhe.index.adaptation.adapted_search import AdaptationFiles
from vpr_dhe.index.compaction import grouped
from vpr_dhe.index.files import file_info, unique_name
from vpr_dhe.index.manifest import CoveringFile, Manifest
from vpr_dhe.index.segments import Segment
from vpr_dhe.index.snapshot import STATE, VECTOR_FILES, Snapshot
from vpr_dhe.index.vectors import FLAT, INDEX_TYPES, Stack, build_vector_file, choose_type
from vpr_dhe.runtime.choices import AUTO
from vpr_dhe.runtime.durable_files import sync_folder

# Vectors in one FAISS file; larger ones take too long to build and too much memory.
COVERED_IMAGES = 1 << 20
# New vectors are searched exactly until they reach this share of those in FAISS files.
UNCOVERED_SHARE = 0.1

Announce: TypeAlias = Callable[[str, int], object]
"""Callback before each FAISS file is built, which may take minutes: called with its type and number of vectors."""


def without_announcement(_kind: str, _vectors: int) -> None:
    """Announce nothing."""


def with_vector_files(snapshot: Snapshot, manifest: Manifest, announce: Announce) -> Manifest:
    """Copy of a manifest with the FAISS files of its index type and adaptation, built where too few vectors are in one.

    `manifest` names the segments of the snapshot.
    """
    kind = manifest.settings.index_type
    kind = choose_type(manifest.count) if kind == AUTO else kind
    if kind == FLAT:
        return replace(manifest, vector_files=())
    files = [file for file in manifest.current_vector_files if file.built.kind == kind]
    covered = sum(file.built.count for file in files)
    stored = sum(info.count for info in manifest.segments)
    if stored - covered <= UNCOVERED_SHARE * covered:
        return manifest
    present = {file.segments: file for file in files}
    groups = grouped(snapshot.segments, lambda segment: len(segment.ids), COVERED_IMAGES)
    built = [
        present.get(tuple(part.name for part in group)) or _build(snapshot, manifest, group, kind, announce)
        for group in groups
    ]
    return replace(manifest, vector_files=tuple(built))


def _build(
    snapshot: Snapshot, manifest: Manifest, segments: Sequence[Segment], kind: str, announce: Announce
) -> CoveringFile:
    announce(kind, sum(len(segment.ids) for segment in segments))
    for segment in segments:
        segment.require_sound_vectors()
    path = snapshot.folder / VECTOR_FILES / f"{unique_name(kind)}.faiss"
    extracted, unit_norm = Stack([segment.vectors for segment in segments]), manifest.spec.unit_norm
    codes = Stack([segment.codes for segment in segments]) if INDEX_TYPES[kind].of_codes else None
    adaptation = AdaptationFiles(snapshot.folder / STATE, manifest.spec.dimension).open(manifest.adaptation)
    if adaptation is None:
        built = build_vector_file(path, kind, extracted, unit_norm=unit_norm, codes=codes)
    else:
        rows = adaptation.file_rows(extracted, np.concatenate([segment.ids for segment in segments]))
        built = build_vector_file(path, kind, rows, unit_norm=True, codes=codes)
    sync_folder(path.parent)
    names = tuple(segment.name for segment in segments)
    return CoveringFile(file_info(path), names, built, manifest.adaptation_name)
