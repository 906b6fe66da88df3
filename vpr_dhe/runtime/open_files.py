"""Limit of open files of this process, which a mapped file counts towards as long as it is mapped."""

from pathlib import Path

from vpr_dhe.errors import BadInputError

# Files that everything but an index may still open: libraries, images that are read, connections of a service.
_OTHERS = 256


def allow_open_files(count: int) -> None:
    """Raise the limit of this process so that so many more files of an index may be opened, if it is lower.

    Raises:
        BadInputError: if the system does not allow that many.
    """
    import resource  # which Windows lacks

    limit, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + sum(1 for _ in Path("/proc/self/fd").iterdir()) + _OTHERS
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise BadInputError(
            f"the index needs {needed} open files, and this system allows a process {allowed}; raise the limit, "
            f"as by `ulimit -Hn {needed}` of an administrator"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, allowed))
