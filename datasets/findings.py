"""Findings of a check, and their wording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Finding:
    """One finding: what was found, what was expected, what to do; a note does not fail the check."""

    found: str
    expected: str
    mend: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'fault'}: {self.found}; expected {self.expected}; {self.mend}"


def some(paths: Sequence[PurePosixPath], what: str) -> str:
    """Number of paths, their kind, and the first of them."""
    if len(paths) == 1:
        return f"{paths[0]} is {what}"
    return f"{len(paths):,} files are {what}, such as {paths[0]}"
