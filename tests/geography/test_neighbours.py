"""Searches by radius."""

from hypothesis import given
from hypothesis import strategies as st

from vpr_dhe.geography.distance import apart, reference_frame_of
from vpr_dhe.geography.neighbours import PositionSearch
from vpr_dhe.records import RECONSTRUCTION, GeoPosition, MetricPosition

DEGREES = st.builds(GeoPosition, st.floats(-0.001, 0.001), st.floats(5.999, 6.001))
SOUTH = st.builds(GeoPosition, st.floats(-33.001, -32.999), st.sampled_from([-180.0, 179.9999, 6.0]))
REFERENCES = st.sampled_from(["UTM 31N", "UTM 32N", "UTM 31", "UTM 32", "UTM 31M", "local", "garden", RECONSTRUCTION])
METRES = st.builds(
    MetricPosition,
    st.one_of(st.floats(833_900, 834_100), st.floats(165_900, 166_100)),
    st.one_of(st.floats(-100, 100), st.floats(9_999_900, 10_000_100)),
    REFERENCES,
)
POSITIONS = st.one_of(DEGREES, SOUTH, METRES)


@given(st.lists(st.none() | POSITIONS, max_size=12), POSITIONS, st.floats(1, 300))
def test_positions_are_found_by_their_distance(positions, centre, radius_m):
    """Across borders of zones, the equator and 180 degrees, and in no other reference frame."""
    search = PositionSearch(positions)
    distances = [apart(position, centre) for position in positions]
    assert search.within(centre, radius_m).tolist() == [
        row for row, found in enumerate(distances) if found is not None and found <= radius_m
    ]
    assert search.comparable(centre).tolist() == [row for row, found in enumerate(distances) if found is not None]
    assert search.reference_frames == {reference_frame_of(position) for position in positions if position is not None}
