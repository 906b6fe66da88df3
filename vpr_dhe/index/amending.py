"""Segments with other records or file times of their images; vectors, local maps and codes stay the same files."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from vpr_dhe.index.changes import Changes
from vpr_dhe.index.files import FileInfo, write_sealed
from vpr_dhe.index.rows import check_of
from vpr_dhe.index.segments import IMAGES, ROWS, Segment, SegmentInfo, image_line, make_segment_folder
from vpr_dhe.runtime.durable_files import seal_folder


def amend(folder: Path, segment: Segment, changes: Changes) -> SegmentInfo:
    """Make a segment with the new records and file times of its images.

    Large files get a second name, or are copied where the file system has no hard links.

    Args:
        folder: folder of segments.
        segment: segment to make another one from; it stays.
        changes: `updated` and `touched` of any images.

    Raises:
        IndexDamagedError: if an image does not agree with its checksum.
    """
    temporary, final = make_segment_folder(folder, segment.info.first_id)
    try:
        rows, ids, written = segment.rows.copy(), segment.ids.tolist(), dict[str, FileInfo]()
        if not changes.updated.keys().isdisjoint(ids):
            written[IMAGES] = write_sealed(temporary, IMAGES, _new_images(segment, changes, rows))
        for row, id in enumerate(ids):
            if id in changes.touched:
                rows["modified_ns"][row] = changes.touched[id]
        written[ROWS] = write_sealed(temporary, ROWS, rows.tobytes())
        for info in segment.info.files:
            if info.name not in written:
                _link(folder / segment.name / info.name, temporary / info.name)
        seal_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files = tuple(written.get(info.name, info) for info in segment.info.files)
    return SegmentInfo(final.name, segment.info.count, segment.info.first_id, files)


def _new_images(segment: Segment, changes: Changes, rows: Shaped[np.ndarray, " count"]) -> bytes:
    """The file of images with new records, whose places in it are written to `rows`."""
    lines, offset = list[bytes](), 0
    for row, id in enumerate(segment.ids.tolist()):
        if (record := changes.updated.get(id)) is None:
            line = segment.image_line(row)
        else:
            line = image_line(replace(segment.image(row), record=record))
        rows["image_offset"][row], rows["image_bytes"][row] = offset, len(line)
        rows["image_check"][row] = check_of(line)
        lines.append(line)
        offset += len(line)
    return b"".join(lines)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
