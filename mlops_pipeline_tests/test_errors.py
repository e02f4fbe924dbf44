import pytest

from mlops_pipeline.errors import masked, shape


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
