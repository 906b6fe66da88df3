"""Findings of a check, and their wording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Finding:
    """Finding of a check, with the expected state and a remedy; a note does not fail the check."""

    found: str
    expected: str
    remedy: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'fault'}: {self.found}; expected {self.expected}; {self.remedy}"


def some(paths: Sequence[PurePosixPath], what: str) -> str:
    """Format the number of paths, their kind, and the first path."""
    if len(paths) == 1:
        return f"{paths[0]} is {what}"
    return f"{len(paths):,} files are {what}, such as {paths[0]}"
