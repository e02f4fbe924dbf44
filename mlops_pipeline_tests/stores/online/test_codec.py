import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_pipeline.config.tables import FeatureType
from mlops_pipeline.errors import DataError, OnlineCorruptError, OnlineDefinitionError
from mlops_pipeline.stores.online.codec import Record, RecordSchema, seal, unseal

NOON_US = 1_735_732_800_000_000
ARROW: dict[str, Any] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64": st.floats(),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(st.characters(exclude_categories=["Cs"])),
    "boolean": st.booleans(),
}
MIXED: dict[str, tuple[FeatureType, Any]] = {
    "spent": ("float64", -0.1),
    "plan": ("string", "größer"),
    "calls": ("int64", 2**53 + 1),
    "city": ("string", ""),
    "is_new": ("boolean", True),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[FeatureType], list[list[Any]]]:
    kinds: list[FeatureType] = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=12))
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds))
    return kinds, [list(values) for values in draw(st.lists(row, max_size=4))]


def exact(values: Any) -> list[Any]:
    """The type of each value and, for floats, its bits: NaN is itself, and 1 is not True."""
    return [
        (type(value), struct.pack("d", value) if isinstance(value, float) else value)
        for value in values
    ]


def mixed(definition: str = "v1") -> RecordSchema:
    return RecordSchema(list(MIXED), [kind for kind, _ in MIXED.values()], definition)


def mixed_blob() -> bytes:
    data = pa.table({name: pa.array([value], ARROW[kind]) for name, (kind, value) in MIXED.items()})
    return mixed().encode_batch(data, NOON_US)[0]


@given(batches(), st.booleans())
@settings(deadline=None)  # the first example imports pyarrow
def test_codec_any_values_come_back_exactly(
    batch: tuple[list[FeatureType], list[list[Any]]], is_sliced: bool
) -> None:
    kinds, rows = batch
    names = [f"f{number}" for number in range(len(kinds))]
    schema = RecordSchema(names, kinds, "v1")
    columns = [[row[number] for row in rows] for number in range(len(kinds))]
    data = pa.table(
        {
            "other": pa.array(range(len(rows)), pa.int64()),
            **{
                name: pa.array(column, ARROW[kind])
                for name, column, kind in zip(names, columns, kinds, strict=True)
            },
        }
    )
    if is_sliced:  # parts of larger buffers, in several chunks
        data = pa.concat_tables([data, data]).slice(len(rows) // 2, len(rows))
        rows = (rows + rows)[len(rows) // 2 :][: len(rows)]
    times = np.arange(len(rows)) - 1
    found = [schema.decode(blob) for blob in schema.encode_batch(data, times)]
    assert [exact(record.values) for record in found] == [exact(row) for row in rows]
    assert [record.feature_time_us for record in found] == list(times)


def test_codec_mixed_types_keep_the_order_of_the_names() -> None:
    found = mixed().decode(mixed_blob())
    assert found == Record(NOON_US, tuple(value for _, value in MIXED.values()))


def test_codec_record_batch_and_large_strings_are_taken() -> None:
    schema = RecordSchema(["plan"], ["string"], "v1")
    batch = pa.record_batch({"plan": pa.array(["a", None], pa.large_string())})
    assert [schema.decode(blob).values for blob in schema.encode_batch(batch, 0)] == [
        ("a",),
        (None,),
    ]


def test_decode_any_byte_changed_is_refused() -> None:
    schema, blob = mixed(), mixed_blob()
    for place in range(len(blob)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(blob)
            damaged[place] ^= change
            with pytest.raises(OnlineCorruptError):
                schema.decode(bytes(damaged))


def test_decode_any_bytes_missing_or_added_is_refused() -> None:
    schema, blob = mixed(), mixed_blob()
    for damaged in [blob[:size] for size in range(len(blob))] + [blob + b"\0", blob[1:]]:
        with pytest.raises(OnlineCorruptError):
            schema.decode(damaged)


@pytest.mark.parametrize(
    "other",
    [
        mixed("v2"),
        RecordSchema([*MIXED][::-1], [kind for kind, _ in MIXED.values()][::-1], "v1"),
        RecordSchema([], [], "v1"),
    ],
)
def test_decode_of_another_definition_is_refused(other: RecordSchema) -> None:
    with pytest.raises(OnlineDefinitionError, match="other feature definitions"):
        other.decode(mixed_blob())


def test_encode_column_missing_names_it() -> None:
    with pytest.raises(DataError, match="where: calls"):
        RecordSchema(["calls"], ["int64"], "v1").encode_batch(pa.table({"spent": [1]}), 0)


@pytest.mark.parametrize("kind", ["float64", "string", "boolean"])
def test_encode_column_of_another_type_is_refused(kind: FeatureType) -> None:
    schema = RecordSchema(["calls"], [kind], "v1")
    with pytest.raises(DataError, match=rf"(?s)where: calls.*expected: {kind}.*found: int64"):
        schema.encode_batch(pa.table({"calls": [1]}), 0)


def test_schema_of_equal_names_or_unknown_types_is_refused() -> None:
    with pytest.raises(DataError, match="distinct names"):
        RecordSchema(["a", "a"], ["int64", "int64"], "v1")
    with pytest.raises(DataError, match="date"):
        RecordSchema(["a"], ["date"], "v1")  # type: ignore[list-item]


def test_seal_any_byte_changed_is_refused() -> None:
    sealed = seal(b"payment of 12.50")
    assert unseal(sealed) == b"payment of 12.50"
    for place in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 0x10
        with pytest.raises(OnlineCorruptError):
            unseal(bytes(damaged))
    with pytest.raises(OnlineCorruptError):
        unseal(b"")
