"""Place of what is cached for the user."""

import os
from pathlib import Path


def user_cache(purpose: str) -> Path:
    """Folder for a purpose in the user's cache; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "vpr-dhe" / purpose
