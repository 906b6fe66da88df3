"""Limit of open files, in processes of their own."""

import subprocess
import sys

import pytest

TRY = """
import resource
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {allowed}))
try:
    allow_open_files({count})
except BadInputError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("limit", "allowed", "count", "after"),
    [(300, 4000, 1000, 1256), (300, 4000, 10, 300), (300, 1256, 1000, 1256), (300, 1255, 1000, 300)],
)
def test_the_limit_is_raised_as_far_as_needed(limit, allowed, count, after):
    command = [sys.executable, "-c", TRY.format(limit=limit, allowed=allowed, count=count)]
    *said, found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert int(found) == after
    refused = "the index needs 1256 open files, and this system allows a process 1255; raise the limit"
    assert [sentence[: len(refused)] for sentence in said] == ([refused] if allowed == 1255 else [])
