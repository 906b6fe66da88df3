"""Result of indexing as lines of text."""

from collections.abc import Iterator, Sequence

from vpr_dhe.geography.exif import unused_positions_text
from vpr_dhe.index.adaptation.report import AdaptationReport
from vpr_dhe.index.add_report import AddReport
from vpr_dhe.index.indexing import IndexingReport
from vpr_dhe.index.map_adaptation import is_outgrown
from vpr_dhe.index.place_index import PlaceIndex
from vpr_dhe.report.tables.adaptation import adaptation_summary

_SHOWN_PATHS = 20


def adaptation_notes(index: PlaceIndex, adaptation: AdaptationReport | None) -> Iterator[str]:
    """Outcome of an adaptation that was made now, or the advice to adapt an index that has outgrown its own."""
    if adaptation is not None:
        yield adaptation_summary(adaptation)
    elif (stored := index.manifest.adaptation) and is_outgrown(index):
        yield (
            f"the index was adapted to {stored.report.images} images, and there are {len(index)} now, many of them "
            f"others; run `vpr-dhe adapt {index.folder}`"
        )


def fault_lines(report: IndexingReport) -> Iterator[str]:
    """Lines about blank images and unused positions among those that were added."""
    if report.added.blank:
        yield _blank_line(report.added.blank)
    if unused := [(image.path, image.reason) for image in report.added.unused_positions]:
        yield f"{report.folder}: {unused_positions_text(unused)}"


def _blank_line(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_SHOWN_PATHS])
    others = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    return f"blank, with too little texture to match: {shown}{others}"


def duplicate_lines(index: PlaceIndex) -> Iterator[str]:
    """Line about images with the same content, if there are any."""
    groups = index.duplicates()
    if groups:
        first, second = (index.image(id).path for id in groups[0][:2])
        surplus = sum(len(group) - 1 for group in groups)
        yield f"{surplus} images have the same content as another, such as {second} and {first}"


def added_summary(added: AddReport) -> str:
    """Counts of added, replaced, unchanged and skipped images."""
    parts = [f"{added.added} added"]
    optional = {"replaced": added.replaced, "with new positions": added.updated, "unchanged": added.unchanged}
    parts += [f"{count} {what}" for what, count in optional.items() if count]
    return ", ".join([*parts, f"{len(added.skipped)} skipped"])
