"""Limit of open files, in processes of their own."""

import subprocess
import sys

import pytest

TRY = """
import os, resource
from vpr_dhe.errors import BadInputError
from vpr_dhe.runtime.open_files import allow_open_files
needed = {count} + len(os.listdir("/proc/self/fd")) + 256
resource.setrlimit(resource.RLIMIT_NOFILE, (300, {allowed}))
try:
    allow_open_files({count})
    print("allowed")
except BadInputError as error:
    print(str(error).replace(str(needed), "NEEDED").split("; ")[0])
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - needed)
"""
TOO_FEW = "the index needs NEEDED open files, and this system allows a process "


@pytest.mark.parametrize(
    ("allowed", "count", "said", "limit_is_as_needed"),
    [
        ("4000", 1000, "allowed", True),
        ("needed", 1000, "allowed", True),
        ("4000", 10, "allowed", False),  # the limit of 300 is enough
        ("needed - 1", 1000, TOO_FEW, False),
    ],
)
def test_the_limit_is_raised_as_far_as_needed(allowed, count, said, limit_is_as_needed):
    command = [sys.executable, "-c", TRY.format(allowed=allowed, count=count)]
    answer, excess = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert answer.startswith(said)
    assert (int(excess) == 0) == limit_is_as_needed
