"""Lists of image pairs, as hloc and COLMAP read them, and the names in them."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vpr_dhe.errors import BadInputError
from vpr_dhe.index.image_folders import ImageFolders
from vpr_dhe.records import StrPath
from vpr_dhe.report.tables.answers import Answer
from vpr_dhe.report.tables.line_format import LineFormat


def pair_format(name_query: Callable[[str], str] = str, name_image: Callable[[str], str] = str) -> LineFormat:
    """Pairs in the format of hloc (`utils/parsers.py`, `parse_retrieval`) and COLMAP (`ReadImagePairsText`).

    Args:
        name_query: converts the name of a query in the answer to its name in pairs.
        name_image: converts the path of a database image in the index to its name in pairs.
    """

    def pairs(answer: Answer) -> Iterator[tuple[str, str]]:
        for match in answer.localization.matches if answer.localization else ():
            yield name_query(answer.query), name_image(match.image)

    def lines(answer: Answer) -> Iterator[str]:
        return (" ".join(pair) for pair in pairs(answer) if name_with_blanks(*pair) is None)

    def left_out(answer: Answer) -> Iterator[str]:
        return (name for pair in pairs(answer) if (name := name_with_blanks(*pair)) is not None)

    return LineFormat(lines, left_out=left_out)


def rooted_pair_format(root: StrPath, folders: ImageFolders, queries: Iterable[str]) -> LineFormat:
    """Pairs whose names are relative to one folder on both sides, as COLMAP needs them.

    Args:
        root: folder of all images; links to folders are followed.
        folders: of the indexed images.
        queries: paths of the queries, as far as they are known.

    Raises:
        BadInputError: if a folder or a query is not in the root.
    """
    for path in (*folders.all, *queries):
        relative_name(root, path)
    return pair_format(
        lambda query: relative_name(root, query), lambda image: relative_name(root, folders.locate(image))
    )


def relative_name(root: StrPath, path: StrPath) -> str:
    """Path relative to a folder; links to folders are followed.

    Raises:
        BadInputError: if it is not inside.
    """
    folder, path = Path(root).resolve(), Path(path)
    # A file may itself be a link to elsewhere.
    for place in (path.parent.resolve() / path.name, path.resolve()):
        if place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    raise BadInputError(f"{path} is not in {root}; give by --names-relative-to a folder that holds all images")


def name_with_blanks(*names: str) -> str | None:
    """First name with whitespace, which lists of pairs do not support; None if there is none."""
    return next((name for name in names if len(name.split()) != 1), None)
