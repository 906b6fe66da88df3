"""Exceptions of the package; messages say what was found, what was expected and what to do.

VprDheError                   any error raised on purpose
├── BadInputError             wrong input or usage; the command line exits with 2
│   ├── ImageError            a file that cannot be read as an image
│   ├── DatasetError          a folder without the expected layout of a data set
│   ├── ModelError            an unknown, unavailable or inconsistent model
│   ├── VerifierError         an unknown verifier, or one that does not support the model
│   ├── IndexFormatError      a folder that is not an index, or one for another model or format
│   │   └── IndexReplacedError    an open index whose folder holds one of another model now
│   └── MissingExtraError     a missing optional dependency, or two that exclude each other
├── ListingError              a folder that cannot be listed completely; the command line exits with 1
├── DownloadError             weights that cannot be downloaded; the command line exits with 1
├── MatcherError              a matcher of another package that fails; the command line exits with 1
├── ExportError               a network that cannot be exported faithfully; the command line exits with 1
├── AlignmentError            two images without a homography between them; the command line exits with 1
├── IndexBusyError            an index that another process is writing to; the command line exits with 1
├── ShardsMissingError        shards of an index that did not answer; the command line exits with 1
├── UnsupportedSystemError    an operating system that the package does not run on; the command line exits with 1
├── TimeLimitError            a time limit that ended before anything was done; the command line exits with 1
├── WorkerLostError           workers that ended while extracting; the command line exits with 1
└── IndexDamagedError         stored data that does not agree with its checksum; the command line exits with 1
"""


class VprDheError(Exception):
    """Base of all exceptions raised on purpose; `exit_code` is the exit status of the command line."""

    exit_code = 1


class BadInputError(VprDheError):
    """Wrong input or usage, which the caller can correct."""

    exit_code = 2


class ImageError(BadInputError):
    """A file that cannot be read as an image."""


class DatasetError(BadInputError):
    """A folder without the expected layout of a data set."""


class ModelError(BadInputError):
    """An unknown, unavailable or inconsistent model."""


class VerifierError(BadInputError):
    """An unknown verifier, or one that does not support the model."""


class IndexFormatError(BadInputError):
    """A folder that is not an index, or an index of another model or format."""


class IndexReplacedError(IndexFormatError):
    """An open index whose folder holds an index of another model now; open that one with its model."""


class IndexedImagesMissingError(BadInputError):
    """Images of an index that are needed, and whose folder is gone."""


class MissingExtraError(BadInputError):
    """A missing optional dependency, or two that exclude each other."""


class ListingError(VprDheError):
    """A folder of images of which a part cannot be listed."""


class IndexDamagedError(VprDheError):
    """Stored data that does not agree with its checksum."""


class IndexBusyError(VprDheError):
    """An index that another process is writing to."""


class ShardsMissingError(VprDheError):
    """Shards of a distributed index that did not answer; the message names them."""


class WorkerLostError(VprDheError):
    """Workers that ended while extracting images, after all attempts."""


class TimeLimitError(VprDheError):
    """A time limit that ended before anything was done."""


class AlignmentError(VprDheError):
    """Two images without a homography between them."""


class ExportError(VprDheError):
    """A network that cannot be converted, or whose outputs differ afterwards."""


class DownloadError(VprDheError):
    """Weights of a published model or matcher that cannot be downloaded, or whose checksum has changed."""


class MatcherError(VprDheError):
    """A matcher of another package that cannot be built, or that fails on all images."""


class UnsupportedSystemError(VprDheError):
    """An operating system that the package does not run on."""
