"""Scalar values of the online computation: types, comparison, exact integers, rounding.

Belongs here: what DuckDB does to one value, as Python. Values are plain Python objects, missing is
None; timestamps are naive and mean UTC. Expressions over them are to_row.py's.
"""

import math
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, Literal

from mlops_pipeline.errors import DataError

Kind = Literal["float64", "int64", "string", "boolean", "timestamp", "date", "null"]
Value = float | int | str | bool | datetime | date | None

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
BELOW_HALF = math.nextafter(0.5, 0.0)  # 0.5 itself would round 0.49999999999999994 up
_WORD = 2**64
_WIDE_LIMIT = 10**38  # of DECIMAL(38), which holds the squares of a deviation


def common_kind(kinds: Iterable[Kind]) -> Kind:
    """Return the type that values of these types share; nulls fit any. TypeError: there is none."""
    found = set(kinds) - {"null"}
    if found == {"int64", "float64"}:
        return "float64"
    if found == {"date", "timestamp"}:
        return "timestamp"
    if len(found) > 1:
        raise TypeError(f"values of types {', '.join(sorted(found))} do not go together")
    return found.pop() if found else "null"


# integers


def int64(value: int) -> int:
    """Return an integer of 64 bits; DataError when it is not, as of the offline engine."""
    if INT64_MIN <= value <= INT64_MAX:
        return value
    raise _outside(value)


def whole(value: float) -> int:
    """Round a float to an int64, halves away from zero."""
    rounded = round_half_away(value, 1.0)
    if not -(2.0**63) <= rounded < 2.0**63:
        raise _outside(value)
    return int(rounded)


def decimal38(value: int) -> int:
    """Return an integer of at most 38 digits."""
    if -_WIDE_LIMIT < value < _WIDE_LIMIT:
        return value
    raise _outside(value, "an integer of at most 38 digits")


def double_of(value: int) -> float:
    """Convert a 128-bit integer as DuckDB does: in two words, so a last bit may differ."""
    if -_WORD <= value < 0:
        return -float(-value - 1) - 1.0
    return float(value & (_WORD - 1)) + float(value >> 64) * float(_WORD - 1)


def _outside(value: float, expected: str = "an integer of 64 bits") -> DataError:
    return DataError(
        "a number does not fit its integer type",
        expected=expected,
        found=str(value),
        way_out="compute with floats, for example 1.0 * n",
    )


# rounding and declared types


def round_half_away(value: float, modifier: float) -> float:
    """Round to a decimal place (`modifier`: 10 to the power of those kept), halves away from zero.

    A value that overflows when scaled stays as it is.
    """
    scaled = value * modifier
    if scaled > 0:
        rounded = (scaled + BELOW_HALF) // 1.0 / modifier
    elif scaled < 0:
        rounded = -((BELOW_HALF - scaled) // 1.0) / modifier
    else:
        return value
    return rounded if math.isfinite(rounded) else value


def converter(kind: Kind, dtype: str, precision: int) -> Callable[[Any], Any]:
    """Return the function that makes a value its declared type; missing stays missing.

    The twin of to_ibis.typed: floats are rounded to the precision, infinities and NaN become
    missing; floats declared int64 are rounded halves away from zero.
    TypeError: values of the type cannot be declared so, as text or a time as a number.
    """
    if kind == dtype and dtype != "float64":
        return unchanged
    if kind == "null":
        return _missing
    numeric = kind in ("float64", "int64", "boolean")
    if dtype == "float64" and numeric:
        return _float_converter(precision)
    conversion = _CONVERSIONS.get((kind, dtype))
    if conversion is None:
        raise TypeError(f"a value of type {kind} is declared {dtype}")
    return lambda value: None if value is None else conversion(value)


def unchanged(value: Any) -> Any:
    """Return a value that has its declared type."""
    return value


def _missing(_value: Any) -> None:
    return None


def _float_converter(precision: int) -> Callable[[Any], float | None]:
    modifier = 10.0**precision

    def convert(value: Any) -> float | None:
        if value is None:
            return None
        number = float(value)
        return round_half_away(number, modifier) if math.isfinite(number) else None

    def convert_whole(value: Any) -> float | None:
        """Round by way of int64, as the compiled rounding to 0 places does."""
        if value is None:
            return None
        number = float(value)
        return float(whole(number)) if math.isfinite(number) else None

    return convert if precision else convert_whole


_CONVERSIONS: dict[tuple[str, str], Callable[[Any], Value]] = {
    ("float64", "int64"): whole,
    ("boolean", "int64"): int,
    ("float64", "string"): repr,
    ("int64", "string"): str,
    ("boolean", "string"): lambda value: "true" if value else "false",
    ("float64", "boolean"): bool,
    ("int64", "boolean"): bool,
}
