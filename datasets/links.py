"""Make the layout of a card by links to folders, without changing the user's files."""

from pathlib import Path

from cards import Split
from faults import DATABASE_NAMES, QUERY_NAMES


class LayOutError(Exception):
    """The layout cannot be made from the existing folders."""


def lay_out(folder: Path, out: Path, split: Split, database: Path | None, queries: Path | None) -> list[Path]:
    """Make OUT/... link to the folders of database and queries, and return the links.

    `database` and `queries` are relative to `folder`; by default, they are searched for by common names.

    Raises:
        LayOutError: if OUT is not empty or lies in `folder`, or a folder is not found.
    """
    if split.database is None or split.queries is None or split.cities:
        raise LayOutError(f"split {split.name} is read as it is published; there is nothing to lay out")
    _require_free(folder, out)
    sources = (
        _source(folder, database, DATABASE_NAMES, split.database, "--database"),
        _source(folder, queries, QUERY_NAMES, split.queries, "--queries"),
    )
    links = [out / split.database, out / split.queries]
    for link, source in zip(links, sources, strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source, target_is_directory=True)
    return links


def _require_free(folder: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise LayOutError(f"{out} is a file; expected a new or an empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise LayOutError(f"{out} is not empty; give --out a new or an empty folder")
    if out.resolve().is_relative_to(folder.resolve()):
        raise LayOutError(f"{out} lies in {folder}, which is left as it is; give --out a folder elsewhere")


def _source(folder: Path, chosen: Path | None, names: tuple[str, ...], target: str, option: str) -> Path:
    """The absolute path of the folder to link to."""
    tried = [chosen] if chosen is not None else [Path(target), *map(Path, names)]
    for path in tried:
        if (folder / path).is_dir():
            return (folder / path).resolve()
    looked_for = ", ".join(dict.fromkeys(map(str, tried)))
    raise LayOutError(f"no folder {looked_for} in {folder}; name it by {option}")
