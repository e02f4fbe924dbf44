import pytest

from mlops_pipeline.errors import SHOWN_NAMES, NotFoundError, masked, shape


def test_shape_shows_how_a_value_looks() -> None:
    assert shape("Ann-Ö 17.5") == "Aaa-A 99.9"
    assert shape(4711) == "9999"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no number: 'O'Brien 17' (INT32)", "no number: 'A'Aaaaa 99' (INT32)"),
        ('Casting value "4711.5" failed', 'Casting value "9999.9" failed'),
        ("Overflow in 900000017 * 12", "Overflow in 999999999 * 12"),
        ("CSV Error on Line: 3\nOriginal Line: 4711,Ann", "CSV Error on Line: 3"),
        ("", ""),
    ],
)  # fmt: skip
def test_masked_keeps_the_words_and_hides_the_values(message: str, shown: str) -> None:
    assert masked(message) == shown


@pytest.mark.parametrize(
    ("name", "way_out"), [("visit", "did you mean 'visits'?"), ("x", "mlops features list")]
)
def test_unknown_name_offers_the_nearest_or_the_way_out(name: str, way_out: str) -> None:
    known = ["spent", "visits"]
    error = NotFoundError.of("feature", name, known, where="shop", way_out="mlops features list")
    assert error.what == f"there is no feature {name!r}"
    assert (error.where, error.found, error.way_out) == ("shop", name, way_out)
    assert set(str(error.expected).removeprefix("one of ").split(", ")) == set(known)


def test_unknown_name_among_many_shows_the_nearest_and_how_many_more() -> None:
    error = NotFoundError.of("feature", "count_31d", [f"count_{days}d" for days in range(1, 31)])
    assert str(error.expected).startswith("one of count_3")
    assert str(error.expected).count("count_") == SHOWN_NAMES
    assert str(error.expected).endswith(" or 22 others")


def test_unknown_name_where_nothing_is_known_offers_nothing() -> None:
    error = NotFoundError.of("feature", "visits", [])
    assert (error.expected, error.way_out) == (None, None)
