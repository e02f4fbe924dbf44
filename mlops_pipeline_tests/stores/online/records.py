"""Small records and events of the tests; times are counted in days from a first one."""

import pyarrow as pa

from mlops_pipeline.stores.online.codec import RecordSchema
from mlops_pipeline.stores.online.interface import StoredEvent, StoredRecord

DAY_US = 86_400_000_000
FIRST_DAY_US = 1_735_689_600_000_000  # 2025-01-01
ODD_KEYS = ["0", "-1", "007", "a:b", "a*b?", "größe", "x" * 300, "with\0nul", "'; --", " "]
SCHEMA = RecordSchema(["value", "plan"], ["int64", "string"], "v1")


def at(day: float) -> int:
    return FIRST_DAY_US + round(day * DAY_US)


def record(entity: str, day: float, *, expires: float | None = None) -> StoredRecord:
    """A record whose value is the day in microseconds."""
    data = pa.table({"value": pa.array([at(day)]), "plan": ["gold"]})
    (blob,) = SCHEMA.encode_batch(data, at(day))
    return StoredRecord(entity, at(day), None if expires is None else at(expires), blob)


def event(entity: str, identity: str, day: float, *, known: float | None = None) -> StoredEvent:
    return StoredEvent(
        entity,
        identity,
        event_time_us=at(day),
        available_at_us=at(day if known is None else known),
        payload=f"{identity} of {entity}".encode(),
    )


def days(blobs: list[bytes | None]) -> list[float | None]:
    """What `record` was given, for each record that was read."""
    return [
        None if blob is None else (SCHEMA.decode(blob).feature_time_us - FIRST_DAY_US) / DAY_US
        for blob in blobs
    ]
