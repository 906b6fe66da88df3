"""Numbers in sentences agree with their nouns."""

from vpr_dhe.runtime.text import counted, none_of


def test_nouns_agree_with_numbers():
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(count, "query", "queries") for count in (1, 2)] == ["1 query", "2 queries"]
    assert [none_of(count, "query", "queries") for count in (1, 3)] == ["no query", "none of the 3 queries"]
