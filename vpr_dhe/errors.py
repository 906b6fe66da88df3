"""One tree of exceptions; each message says what was found, what was expected and what to do.

VprDheError                   anything this package raises on purpose
├── BadInputError             the caller's input or usage; the command line exits with 2
│   ├── ImageError            a file that cannot be read as an image
│   ├── DatasetError          a folder that is not the data set it should be
│   ├── ModelError            a model that is unknown, unavailable or inconsistent
│   ├── VerifierError         a verifier that is unknown or cannot work with this model
│   ├── IndexFormatError      a folder that is not an index, or one made for something else
│   └── MissingExtraError     an optional dependency that is not installed, or two that exclude each other
├── ExportError               a network that was not exported as it is; the command line exits with 1
├── AlignmentError            two images that no homography was found between; the command line exits with 1
├── IndexBusyError            an index that another process is writing to; the command line exits with 1
├── ShardsMissingError        shards of an index that did not answer; the command line exits with 1
├── WorkerLostError           images that end every worker that extracts them; the command line exits with 1
└── IndexDamagedError         stored data whose checksum no longer agrees; the command line exits with 1
"""


class VprDheError(Exception):
    """Base of every exception raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class BadInputError(VprDheError):
    """Input or usage that the caller can mend."""

    exit_code = 2


class ImageError(BadInputError):
    """A file that cannot be read as an image."""


class DatasetError(BadInputError):
    """A folder that is not laid out as the data set it should be."""


class ModelError(BadInputError):
    """A model that is unknown, not available here, or whose file is inconsistent."""


class VerifierError(BadInputError):
    """A verifier that is unknown, or that cannot work with the model at hand."""


class IndexFormatError(BadInputError):
    """A folder that is not an index, or an index made for another model or format."""


class MissingExtraError(BadInputError):
    """An optional dependency that is not installed, or two that exclude each other; the message says what to do."""


class IndexDamagedError(VprDheError):
    """Stored data that no longer agrees with its checksum."""


class IndexBusyError(VprDheError):
    """An index that another process is writing to."""


class ShardsMissingError(VprDheError):
    """Shards of a distributed index that did not answer; the message names them."""


class WorkerLostError(VprDheError):
    """Images that were not extracted because the workers that tried to ended."""


class AlignmentError(VprDheError):
    """Two images that no homography was found between."""


class ExportError(VprDheError):
    """A network that cannot be converted, or that computes something else once it is."""
