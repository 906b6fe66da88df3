"""Short display names of images."""

from pathlib import PurePosixPath

_PANORAMA, _HEADING, _NOTE = 7, 9, 14


def readable_name(path: str) -> str:
    """Shorten the path of an image: to panorama and heading in the standard layout, else to the last folder and file.

    The web page of the service does the same (`service/assets/answer.js`).
    """
    name = PurePosixPath(path).name
    if not name.startswith("@"):
        return "/".join(PurePosixPath(path).parts[-2:])
    fields = name.rsplit("@", 1)[0].split("@")
    fields += [""] * (_NOTE + 1 - len(fields))
    title = fields[_PANORAMA] or fields[_NOTE] or name
    return f"{title}, {_degrees(fields[_HEADING])}" if fields[_HEADING] else title


def _degrees(heading: str) -> str:
    try:
        return f"{float(heading):.0f}°"
    except ValueError:
        return heading
