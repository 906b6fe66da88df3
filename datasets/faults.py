"""Common faults of copies of data sets, one function for each; FAULTS lists them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from cards import Split
from findings import Finding, some
from hpatches_faults import hpatches_faults
from msls_faults import msls_faults
from user_copy import UserCopy, folders_below

from vpr_dhe.images.listing import walk_folders

DATABASE_NAMES = ("database", "db", "gallery", "ref", "reference", "references", "index")
QUERY_NAMES = ("queries", "query", "q")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z")
_PITTSBURGH_RAW = re.compile(r"\d+_pitch\d+_yaw\d+\.jpg")
_LFS_POINTER = b"version https://git-lfs"
_LFS_POINTER_BYTES = 1024
_DEPTH = 2


def misplaced_root(copy: UserCopy) -> Iterator[Finding]:
    """The folder is one or two levels above or below the root of the data set."""
    if copy.present:
        return
    for split in copy.splits:
        for folder in split.folders:
            right = _below(copy.root, folder) or _above(copy.root, folder)
            if right is not None:
                yield Finding(
                    f"{copy.root} has no {folder}, but {right} has", "the root of the data set", f"give {right}"
                )
                return


def _below(root: Path, folder: str) -> Path | None:
    return next((path for path in folders_below(root, _DEPTH) if (path / folder).is_dir()), None)


def _above(root: Path, folder: str) -> Path | None:
    parts = PurePosixPath(folder).parts
    for depth, parent in enumerate(root.resolve().parents, start=1):
        if depth > len(parts):
            return None
        if root.resolve().parts[-depth:] == parts[:depth] and (parent / folder).is_dir():
            return parent
    return None


def missing_folders(copy: UserCopy) -> Iterator[Finding]:
    """A folder of the tree is not there, or goes by another name."""
    for split in copy.splits:
        missing = [folder for folder in split.folders if not copy.has(folder)]
        renamed = {folder: other for folder in missing if (other := _by_another_name(copy, folder)) is not None}
        for folder, other in renamed.items():
            yield Finding(f"{other} is there, {folder} is not", folder, _rename(copy, split, folder, other))
        if split in copy.present or not copy.present:
            yield from (_missing(copy, split, folder) for folder in missing if folder not in renamed)
        elif not renamed:
            remedy = "get it if you need it"
            yield Finding(f"nothing of split {split.name} is there", split.folders[0], remedy, is_note=True)


def _missing(copy: UserCopy, split: Split, folder: str) -> Finding:
    broken = (copy.root / folder).is_symlink()
    found = f"{folder} is a link that leads nowhere" if broken else f"{folder} does not exist"
    source = "put what it pointed to back" if broken else f"see `python datasets/prepare.py show {copy.card.name}`"
    return Finding(found, f"a folder with the images of split {split.name}", source)


def _by_another_name(copy: UserCopy, folder: str) -> str | None:
    """The sibling that is what `folder` should be, if its name is one of those in use."""
    path = PurePosixPath(folder)
    known = next((names for names in (DATABASE_NAMES, QUERY_NAMES) if path.name in names), ())
    taken = {taken for split in copy.card.split for taken in split.folders}
    others = (path.with_name(name).as_posix() for name in known if name != path.name)
    return next((other for other in others if other not in taken and copy.has(other)), None)


def _rename(copy: UserCopy, split: Split, folder: str, other: str) -> str:
    option = "--database" if folder == split.database else "--queries"
    return (
        f"rename it, or leave it and run `python datasets/prepare.py lay-out {copy.card.name} {copy.root} --out OUT "
        f"--split {split.name} {option} {other}`"
    )


def counts(copy: UserCopy) -> Iterator[Finding]:
    """A folder holds more or fewer images than the data set's authors put there."""
    for split in copy.present:
        if split.cities:
            continue
        for folder, expected in ((split.database, split.database_images), (split.queries, split.query_images)):
            if folder is None or expected is None or not copy.has(folder):
                continue
            found = len(copy.images(folder))
            if found < expected:
                yield Finding(f"{folder} holds {found:,} images", f"{expected:,}", "unpack or download it again")
            if found > expected:
                remedy = "move what is not part of the data set elsewhere"
                yield Finding(f"{folder} holds {found:,} images", f"{expected:,}", remedy)


def archives(copy: UserCopy) -> Iterator[Finding]:
    """Archives lie beside the tree: perhaps they are not unpacked."""
    folders = [copy.root, *folders_below(copy.root, _DEPTH)] if not copy.present else [copy.root]
    for folder in folders:
        found = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(_ARCHIVES))
        if found:
            names = ", ".join(path.name for path in found[:3]) + (" and more" if len(found) > 3 else "")
            remedy = "unpack it here, unless you have"
            yield Finding(f"{names} in {folder}", "archives unpacked", remedy, is_note=True)


def empty_files(copy: UserCopy) -> Iterator[Finding]:
    """Files without a byte, as an interrupted download leaves them."""
    empty = [image.path for image in copy.all_images if image.size == 0]
    if empty:
        yield Finding(some(empty, "empty"), "images", "unpack or download again")


def broken_links(copy: UserCopy) -> Iterator[Finding]:
    """Links whose target was moved or removed."""
    broken = [image.path for image in copy.all_images if image.size is None]
    if broken:
        yield Finding(some(broken, "linked to what is not there"), "images", "put what they pointed to back")


def large_file_pointers(copy: UserCopy) -> Iterator[Finding]:
    """Pointers of git-lfs in place of images."""
    small = (image for image in copy.all_images if image.size and image.size < _LFS_POINTER_BYTES)
    found = [image.path for image in small if (copy.root / image.path).read_bytes().startswith(_LFS_POINTER)]
    if found:
        yield Finding(some(found, "left in git-lfs"), "images", "run `git lfs pull` in the repository")


def names_without_position(copy: UserCopy) -> Iterator[Finding]:
    """Names that should carry a UTM position and do not."""
    for split in copy.present:
        if not split.positions or split.cities:
            continue
        images = [image for folder in split.folders for image in copy.images(folder)]
        found = [
            image.path for image in images if image.zone is None and not _PITTSBURGH_RAW.fullmatch(image.path.name)
        ]
        if found:
            remedy = "format the data set with github.com/gmberton/VPR-datasets-downloader"
            yield Finding(some(found, "without a position"), "names like @utm_east@utm_north@...@.jpg", remedy)


def other_zone(copy: UserCopy) -> Iterator[Finding]:
    """Names that place images in another UTM zone than the data set's."""
    expected = copy.card.utm_zone
    if expected is None:
        return
    other = [image for image in copy.all_images if image.zone and image.zone.upper() != expected]
    if other:
        zones = ", ".join(sorted({str(image.zone) for image in other}))
        remedy = "see whether this is another data set; positions of different zones cannot be compared"
        yield Finding(some([image.path for image in other], f"in UTM zone {zones}"), f"zone {expected}", remedy)


def two_formats(copy: UserCopy) -> Iterator[Finding]:
    """The same image twice, as .png and as .jpg: every count and every frame number would be off."""
    times = Counter(image.path.with_suffix("") for image in copy.all_images)
    found = [path for path, count in times.items() if count > 1]
    if found:
        remedy = "remove those of one format"
        yield Finding(some(found, "there with several extensions"), "each image once", remedy)


def _files(copy: UserCopy) -> Iterator[Path]:
    """All files that can be listed; folders that cannot are found as broken images."""
    return (folder / name for folder, names in walk_folders(copy.root, lambda _: None) for name in names)


def pittsburgh_raw(copy: UserCopy) -> Iterator[Finding]:
    """Pittsburgh as its authors hand it out, positions still in .mat files."""
    if not copy.card.name.startswith("pitts"):
        return
    raw = next((path for path in _files(copy) if _PITTSBURGH_RAW.fullmatch(path.name)), None)
    if raw is not None:
        script = f"format_{copy.card.name}.py of github.com/gmberton/VPR-datasets-downloader"
        yield Finding(f"{copy.relative(raw)} has a raw name", "@utm_east@utm_north@...@.jpg", f"run {script}")


def finder_leftovers(copy: UserCopy) -> Iterator[Finding]:
    """Files that macOS leaves in folders and archives; this library skips hidden files, other code may not."""
    found = [copy.relative(path) for path in _files(copy) if path.name == ".DS_Store" or path.name[:2] == "._"]
    if found:
        remedy = f"run `find {copy.root} '(' -name '._*' -o -name .DS_Store ')' -delete`; this library skips them"
        yield Finding(some(found, "left by macOS"), "images and metadata alone", remedy, is_note=True)


FAULTS: tuple[Callable[[UserCopy], Iterator[Finding]], ...] = (
    missing_folders,
    archives,
    pittsburgh_raw,
    counts,
    empty_files,
    broken_links,
    large_file_pointers,
    names_without_position,
    other_zone,
    two_formats,
    finder_leftovers,
    msls_faults,
    hpatches_faults,
)


def find_faults(copy: UserCopy) -> list[Finding]:
    """All findings, each once; of a folder that is the wrong one, only that."""
    wrong = list(misplaced_root(copy))
    # Splits may share a folder, and with it what is wrong there.
    return wrong or list(dict.fromkeys(finding for fault in FAULTS for finding in fault(copy)))
