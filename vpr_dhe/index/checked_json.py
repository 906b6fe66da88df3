"""JSON files with a format and a checksum, replaced atomically."""

import json
from pathlib import Path
from typing import Any

from vpr_dhe.errors import IndexDamagedError, IndexFormatError
from vpr_dhe.runtime.checksums import json_sha256
from vpr_dhe.runtime.durable_files import write_durably


def write_document(folder: Path, name: str, format: str, content: Any) -> None:
    """Replace a document atomically and durably."""
    document = {"format": format, "sha256": json_sha256(content), "content": content}
    write_durably(folder, name, json.dumps(document, indent=1, allow_nan=False).encode())


def read_document(path: Path, format: str | tuple[str, ...], remedy: str) -> dict[str, Any]:
    """Read the content of a document of one of these formats; `remedy` is the advice in error messages.

    Raises:
        IndexFormatError: if it has another format.
        IndexDamagedError: if it does not agree with its checksum.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IndexDamagedError(f"{path} cannot be parsed ({error}); {remedy}") from error
    formats = (format,) if isinstance(format, str) else format
    if not isinstance(document, dict) or document.get("format") not in formats:
        expected = " or ".join(map(repr, formats))
        raise IndexFormatError(f"{path} is not of the format {expected}; {remedy} with this version")
    content: dict[str, Any] = document.get("content", {})
    if json_sha256(content) != document.get("sha256"):
        raise IndexDamagedError(f"{path} does not agree with its checksum; {remedy}")
    return content


def is_sound_document(path: Path) -> bool:
    """Whether a document of any format agrees with its checksum."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return json_sha256(document["content"]) == document["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
