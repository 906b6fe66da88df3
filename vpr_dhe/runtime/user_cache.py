"""Place of what is cached for the user."""

import os
from pathlib import Path


def user_cache(purpose: str) -> Path:
    """Folder for a purpose in the user's cache (XDG Base Directory Specification); it may not exist.

    Raises:
        FileNotFoundError: if the user has no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():  # relative paths are to be ignored
        return Path(given) / "vpr-dhe" / purpose
    try:
        return Path.home() / ".cache/vpr-dhe" / purpose
    except RuntimeError:
        raise FileNotFoundError("this user has no home folder") from None
