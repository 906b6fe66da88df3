"""Code of the manual: what is in its pages, and which of it runs."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# ```bash or ```python, with the comment before it that says how it runs: <!-- no-run: REASON --> or <!-- slow -->.
# A whole page that does not run says <!-- no-run on this page: REASON -->.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>no-run|slow)(?:: (?P<reason>[^>]+))? -->\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PAGE = re.compile(r"^<!-- no-run on this page: (?P<reason>[^>]+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """One block of code; `mark` is "no-run", "slow" or None."""

    page: str
    line: int
    language: str
    code: str
    mark: str | None
    reason: str | None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, continued lines joined, comments left out."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines for part in line.split(" && ") if (words := shlex.split(part, comments=True))]


def snippets_of(page: Path) -> Iterator[Snippet]:
    """The blocks of Python and of commands in a page."""
    text = page.read_text(encoding="utf-8")
    whole = _PAGE.search(text)
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        name = page.relative_to(ROOT).as_posix()
        mark, reason = ("no-run", whole["reason"]) if whole else (found["mark"], found["reason"])
        yield Snippet(name, line, found["language"], found["code"], mark, reason)
