"""Events into the online store as they happen, before their rows are ingested.

A pushed row is the event that ingestion will make of it: judged by the same rules, known when it
declares so. When the row is accepted later, nothing changes. Two things only the accepted rows
know: from when on a late row counts, which is its ingestion; and that a revision gives an event to
another entity, which the entity that loses it sees with the next materialization.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.rules import row_rules
from mlops_pipeline.errors import DataError, NotFoundError, masked
from mlops_pipeline.lifecycle.features.online.checkpoint import StreamMarker, read_marker, written
from mlops_pipeline.lifecycle.features.online.events import EventStream
from mlops_pipeline.lifecycle.features.online.layout import (
    microseconds,
    never_filled,
    online_layout,
)
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.online.interface import OnlineStore

NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # times after now are judged by the push itself


@dataclass(frozen=True)
class Pushed:
    """What became of pushed rows.

    `new` events; `refused` rows that break a rule; `late` ones, which declare to have been known
    before what is accepted: they count from their ingestion on, if they are not accepted already.
    """

    rows: int
    new: int
    refused: int
    late: int = 0


class LiveEvents:
    """Pushes the events of one source; its rules are compiled once, when this is made.

    Raises
    ------
    NotFoundError
        When no online view is counted from events of the source.
    """

    def __init__(self, use_case: UseCase, source: str) -> None:
        import ibis
        import pyarrow as pa

        if source not in online_layout(use_case).sources:
            raise NotFoundError(
                "no online view is counted from events of this source",
                where=use_case.name,
                expected=", ".join(online_layout(use_case).sources) or "a continuous view",
                found=source,
            )
        self.stream = EventStream(use_case, source)
        self._section = use_case.sources[source]
        types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(),
                 "boolean": pa.bool_(), "timestamp": pa.timestamp("us"),
                 "date": pa.date32()}  # fmt: skip
        kinds = {name: types[self._section.column(name).type] for name in self._section.columns}
        self._schema = pa.schema(kinds)
        self._connection = ibis.duckdb.connect(threads=1)
        self._sql = self._connection.con
        self._sql.register("_given", self._schema.empty_table())
        table = self._connection.table("_given")
        rules = row_rules(use_case, source, self._section, table, NEVER)
        broken = reduce(or_, rules.values())
        judged = self._connection.compile(table.mutate(_is_broken=broken))
        self._sql.execute(f"CREATE VIEW _judged AS {judged}")

    def push(
        self, store: OnlineStore, rows: Sequence[Mapping[str, Any]], *, now: datetime
    ) -> Pushed:
        """Add rows of the source to its stream; the same rows again change nothing.

        Parameters
        ----------
        rows : sequence of mapping
            Every column of the source; times without a zone are UTC.
        now : datetime
            When they arrived.

        Raises
        ------
        DataError
            When a column is missing or a value is of another type.
        OnlineDefinitionError
            When the stream was never filled by materialization.
        """
        import pyarrow.compute as pc

        held = read_marker(store, self.stream.table, StreamMarker)
        if held is None or not held.is_complete:
            raise never_filled(self.stream.use_case, self.stream.table)
        self._sql.register("_given", self._arrow(rows))
        self._sql.execute(f"CREATE OR REPLACE TEMP TABLE _good AS {self._good(microseconds(now))}")
        query = self.stream.versions("_good", revised=False)
        good = self._sql.sql(query).to_arrow_table()
        events = good.filter(pc.field("_declared_us") >= held.late_before_us)
        newest_us = max([held.newest_us, *events.column("_declared_us").to_pylist()])
        marker = replace(
            held,
            newest_us=newest_us,
            kept_from_us=max(held.kept_from_us, newest_us - self.stream.keep_us),
        )
        new = store.append_events(
            self.stream.table,
            self.stream.encode(events),
            keep_after_us=marker.kept_from_us,
            checkpoint=written(marker),
        )
        return Pushed(len(rows), new, len(rows) - len(good), len(good) - len(events))

    def _arrow(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        missing = {name for name in self._schema.names for row in rows if name not in row}
        if missing:
            raise DataError(
                "a pushed event lacks a column",
                where=f"source {self.stream.source}, {', '.join(sorted(missing))}",
                expected="every column of the source; a missing value is null",
            )
        try:
            columns = [
                pa.array([row[field.name] for row in rows], field.type) for field in self._schema
            ]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                "a value of a pushed event is not of its column's type",
                where=f"source {self.stream.source}",
                found=masked(str(error)),
            ) from error
        return pa.table(columns, schema=self._schema)

    def _good(self, now_us: int) -> str:
        """Return the query of the rows that break no rule, in the order in which they count."""
        happened, declared = (
            quoted(name) for name in (self._section.event_time, self._section.availability)
        )
        now = f"make_timestamp({now_us})"
        keys = [quoted(name) for name in self._section.key]
        order = ", ".join(dict.fromkeys([happened, declared, *keys]))
        good = " AND ".join(
            ["NOT _is_broken", f"{happened} <= {now}", f"{declared} <= {now}",
             *(f"{key} IS NOT NULL" for key in keys)]
        )  # fmt: skip
        return (
            f"SELECT {self.stream.columns()} FROM (SELECT *, {declared} AS _available_at, "
            f"{now_us} + row_number() OVER (ORDER BY {order}) - 1 AS _row_no "
            f"FROM _judged WHERE {good})"
        )


def push_events(
    use_case: UseCase,
    store: OnlineStore,
    source: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    now: datetime,
) -> Pushed:
    """Push rows once, see `LiveEvents.push`; who pushes often keeps a `LiveEvents`."""
    return LiveEvents(use_case, source).push(store, rows, now=now)
