"""Output of file names on terminals and in locales that cannot encode some of their characters."""

import codecs
import io
import sys

_ERRORS = "vpr_dhe_escape"
_SURROGATES = range(0xDC80, 0xDD00)
_warned = False


def write_all_names(stream: object) -> None:
    """Make a stream escape characters that it cannot encode, and pass bytes through that are not text.

    File names need not be text in any encoding; such bytes are written unchanged. One line on stderr says that
    characters are escaped.
    """
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error(_ERRORS, _escaped)
        stream.reconfigure(errors=_ERRORS)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """Error handler of `codecs`: replaces the first character that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    code = ord(error.object[error.start])
    if code in _SURROGATES:
        return bytes([code - 0xDC00]), error.start + 1
    _warn(sys.stdout.encoding)
    return error.object[error.start].encode("ascii", "backslashreplace").decode(), error.start + 1


def _warn(encoding: str) -> None:
    global _warned  # noqa: PLW0603 (said once in a process)
    if not _warned:
        _warned = True
        print(
            f"characters that {encoding} cannot encode are written as escapes such as \\u0443; set "
            "PYTHONIOENCODING=utf-8 or a locale with UTF-8",
            file=sys.stderr,
        )
