"""Codec of an index and the measurements of `auto`, as text and as JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vpr_dhe.index.codec_fidelity import CodecTrials
from vpr_dhe.index.manifest import CodecInfo


def codec_document(codec: CodecInfo | None, *, outdated: bool) -> dict[str, Any] | None:
    """JSON object of a codec; null for an index that has none yet."""
    if codec is None:
        return None
    trials = codec.trials and asdict(codec.trials)
    return {"name": codec.name, "images": codec.images, "trials": trials, "outdated": outdated}


def codec_summary(codec: CodecInfo, trials: CodecTrials) -> str:
    """Chosen codec, and the measurements of all, in one line."""
    of = f" as stored by {trials.stored}" if trials.stored else ""
    measured = [
        f"{name} {one.order_agreement:.1%} and {one.inlier_difference:.1%}" for name, one in trials.fidelity.items()
    ]
    return (
        f"local maps are stored as {codec.name}; order kept and inliers changed, in {trials.verifications} pairs"
        f"{of} verified by {trials.verifier}: {', '.join(measured) or 'no smaller codec'}"
    )


def outdated_codec_line(codec: CodecInfo, index: Path) -> str:
    """Recommendation for an index whose codec was chosen by an earlier rule."""
    return (
        f"local maps are stored as {codec.name}, chosen by an earlier rule that may cost recall; run `vpr-dhe compact "
        f"{index} --codec auto` to measure inliers as well; precision lost by {codec.name} can be restored only by "
        "indexing the images into a new folder"
    )
