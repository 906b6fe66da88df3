"""User cache directory."""

import os
from pathlib import Path

CACHE_VARIABLE = "VPR_DHE_CACHE"


def user_cache(purpose: str) -> Path:
    """Folder for a purpose in the user cache; it may not exist.

    The cache is `VPR_DHE_CACHE`, or `vpr-dhe` in the cache folder of the user (XDG Base Directory Specification).

    Raises:
        FileNotFoundError: if the user has no home folder.
    """
    if own := os.environ.get(CACHE_VARIABLE, ""):
        return Path(own).expanduser().absolute() / purpose
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():  # relative paths are to be ignored
        return Path(given) / "vpr-dhe" / purpose
    try:
        return Path.home() / ".cache/vpr-dhe" / purpose
    except RuntimeError:
        raise FileNotFoundError("this user has no home folder") from None
