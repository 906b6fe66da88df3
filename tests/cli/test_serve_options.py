"""Options of `serve` that become limits, and the addresses that only this machine reaches."""

import pytest

from vpr_dhe.cli.serve import ServiceLimitsOptions, _is_loopback
from vpr_dhe.service.limits import Limits


def test_options_become_limits():
    options = ServiceLimitsOptions(
        batch_size=3, batch_wait_ms=7.0, queue=9, max_body_mb=2.0, max_megapixels=1.5, timeout_s=4.0
    )
    assert options.build() == Limits(
        body_bytes=2_000_000, pixels=1_500_000, timeout_s=4.0, queue=9, batch_size=3, batch_wait_s=0.007
    )


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("robot", False),
    ],
)
def test_addresses_of_this_machine(host, expected):
    assert _is_loopback(host) == expected
