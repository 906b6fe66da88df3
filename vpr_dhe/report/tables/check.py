"""Result of a check of an index, as text and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpr_dhe.index.checking import CheckReport
from vpr_dhe.report.tables.adaptation import adaptation_document, adaptation_lines
from vpr_dhe.report.tables.codec import codec_document, codec_summary, outdated_codec_line


def check_lines(report: CheckReport, index: Path) -> Iterator[str]:
    """Content of an index, its codec, grey levels and adaptation."""
    yield f"{index}: {report.images} images in {report.segments} segments, {report.skipped} skipped, {report.model}"
    if len(report.folders) > 1:
        yield from (f"images in {folder}" for folder in report.folders)
    yield from _codec_lines(report, index)
    yield from _grey_level_lines(report)
    if report.adaptation:
        yield from adaptation_lines(report.adaptation)


def check_document(report: CheckReport) -> dict[str, Any]:
    """JSON object of a report; without `grey_levels` where no 16-bit image has been seen, or `folders` if it is one."""
    document = asdict(report) | {
        "adaptation": adaptation_document(report.adaptation),
        "codec": codec_document(report.codec, outdated=report.codec_is_outdated),
    }
    del document["codec_is_outdated"]
    bit_depth = document.pop("bit_depth")
    if bit_depth is not None and report.grey_levels is None:
        del document["grey_levels"]
    if len(report.folders) < 2:
        del document["folders"]
    return document


def _codec_lines(report: CheckReport, index: Path) -> Iterator[str]:
    """Line about the choice of the codec; none if the user chose it, or nothing was measured."""
    if report.codec is None:
        return
    if report.codec_is_outdated:
        yield outdated_codec_line(report.codec, index)
    elif report.codec.trials:
        yield codec_summary(report.codec, report.codec.trials)


def _grey_level_lines(report: CheckReport) -> Iterator[str]:
    """Line about the grey levels of 16-bit images; none where nothing is to be said."""
    if report.grey_levels:
        yield f"16-bit images: values from {report.grey_levels.low} to {report.grey_levels.high} become 8 bits"
    elif report.bit_depth is None:
        yield (
            "16-bit images: divided by 257, because the index is from before --bit-depth; if it holds images of fewer "
            "bits, index them again into a new folder"
        )
