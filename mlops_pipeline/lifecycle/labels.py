"""Labels that clients send: rows of a source, delivered as a file that the lifecycle ingests.

When a row could be known is when it arrived: the service says so itself, a client cannot.
"""

import hashlib
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.json as arrow_json

from mlops_pipeline import errors
from mlops_pipeline.config.tables import ColumnType, Source
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.stores.files import locked, write_delivery
from mlops_pipeline.stores.settings import Settings, parse_time

ROWS_AT_ONCE = 1_000
ARROW: Mapping[ColumnType, tuple[Any, tuple[type, ...]]] = {  # what JSON may hold of each
    "string": (pa.string(), (str,)),
    "int64": (pa.int64(), (int,)),
    "float64": (pa.float64(), (int, float)),
    "boolean": (pa.bool_(), (bool,)),
    "timestamp": (pa.timestamp("us", tz="UTC"), (str,)),
    "date": (pa.timestamp("us"), (str,)),
}
ARRIVAL = "%Y%m%dT%H%M%S%f"  # in the name of a file
DIGITS = 32  # of a hash there
TIMES = ("timestamp", "date")  # microseconds, until they are cast


class Delivery(NamedTuple):
    """The file of a delivery, and when it arrived."""

    path: Path
    arrived_at: datetime


def deliver_labels(
    use_case: UseCase,
    settings: Settings,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
    request: tuple[str, str] | None = None,
) -> Delivery:
    """Write rows as a delivery of a source, which arrived now.

    The same `request` (a caller, and its id of it) again gets the first delivery;
    RequestConflictError with other rows. DataError when a row is not of the source's columns and
    types, or the source takes no rows.
    """
    if name not in use_case.sources:
        raise errors.NotFoundError.of("source", name, use_case.sources, where="source")
    source = use_case.sources[name]
    _check_source(settings, name, source)
    if not 0 < len(rows) <= ROWS_AT_ONCE:
        raise errors.DataError(
            "a delivery has one row or more",
            where="rows",
            expected=f"1 to {ROWS_AT_ONCE:,}",
            found=f"{len(rows):,}",
        )
    kinds = {column: source.column(column).type for column in source.columns}
    sent = [column for column in kinds if column != source.available_at]
    for column in dict.fromkeys(column for row in rows for column in row):
        if column not in sent:
            raise errors.NotFoundError.of("column to send", column, sent, where=f"source {name}")
    arrival = {source.available_at: _micros(now, kinds[source.available_at or ""])}
    given = [{column: _value(column, kinds[column], row) for column in sent} for row in rows]
    folder, content = settings.data_dir / source.uri, _digest(json.dumps(given))
    asked = secrets.token_hex(DIGITS // 2) if request is None else _digest(*request)
    with locked(folder):
        known = next(folder.glob(f"labels-*-{asked}.parquet"), None)
        if known is None:
            lines = [json.dumps({**row, **arrival}) for row in given]
            path = folder / f"labels-{now:{ARRIVAL}}-{content}-{asked}.parquet"
            return Delivery(write_delivery(path, _table(lines, kinds)), now)
    _, arrived, before, _ = known.stem.split("-")
    if before != content:
        raise errors.RequestConflictError(
            "the id of this request was used for other rows",
            where="request_id",
            expected="the same rows as before, or a new id",
            found="other rows",
            way_out="give each request an id of its own",
        )
    return Delivery(known, datetime.strptime(arrived, ARRIVAL).replace(tzinfo=UTC))


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGITS]


def _table(lines: Sequence[str], kinds: Mapping[str, ColumnType]) -> Any:
    """Return rows as a table; a reader in C++, because Arrow's own of lists imports pandas."""
    read = {name: pa.int64() if kind in TIMES else ARROW[kind][0] for name, kind in kinds.items()}
    options = arrow_json.ParseOptions(explicit_schema=pa.schema(read))
    try:
        table = arrow_json.read_json(io.BytesIO("\n".join(lines).encode()), parse_options=options)
        return table.cast(pa.schema({name: ARROW[kind][0] for name, kind in kinds.items()}))
    except pa.ArrowInvalid as error:  # half a character, a number beyond all
        raise errors.DataError(
            "a value cannot be stored", where="rows", found=errors.masked(str(error))
        ) from error


def _micros(time: datetime, kind: ColumnType) -> int:
    """Return microseconds since 1970; of a date those of its beginning."""
    if kind == "date":
        time = time.replace(hour=0, minute=0, second=0, microsecond=0)
    return to_us(time)


def _check_source(settings: Settings, name: str, source: Source) -> None:
    what, where = "this source takes no rows over HTTP", f"source {name}"
    if source.available_at is None or source.format != "parquet":
        expected = "a Parquet source whose available_at names a column, which is the arrival"
        found = f"format {source.format}, available_at {source.available_at}"
        raise errors.DataError(what, where=where, expected=expected, found=found)
    if not (settings.data_dir / source.uri).is_dir():
        expected, found = "a uri that is a folder of files", "a file, a glob or nothing"
        raise errors.DataError(what, where=where, expected=expected, found=found)


def _value(column: str, kind: ColumnType, row: Mapping[str, Any]) -> Any:
    """Return a value as its column's type; the value itself is not repeated in an error."""
    value = row.get(column)
    if value is None:
        return None
    try:
        is_right: bool = isinstance(value, ARROW[kind][1])
        if is_right and isinstance(value, bool) == (kind == "boolean"):
            if kind in TIMES:
                return _micros(parse_time(value), kind)
            if kind == "float64":
                return float(value)
            if kind != "int64" or -(2**63) <= value < 2**63:
                return value
    except (errors.ConfigError, OverflowError):  # no time; beyond all floats
        pass
    raise errors.DataError(
        "a value is not of its column's type",
        where=column,
        expected=kind if kind not in ("date", "timestamp") else f"{kind}, as ISO 8601",
        found=type(value).__name__,
    )
