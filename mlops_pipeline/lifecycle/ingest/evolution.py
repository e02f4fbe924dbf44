"""A raw table follows its source: columns that are new, wider, left out or back again.

A new column is missing in the rows from before it was declared, and those rows are compared with
a delivery without it: what is delivered again with values in it is no other row. `since` in the
facts of a commit says from which `_row_no` on a column was read; `columns` what was declared.
"""

from typing import Any

from mlops_pipeline.config.tables import Source
from mlops_pipeline.errors import SourceError
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import Engine, quoted
from mlops_pipeline.stores.lake.tables import TableState
from mlops_pipeline.stores.sources import stored_type

WIDER = {("BIGINT", "DOUBLE")}  # stored type, declared type


def evolve(context: Context, name: str, uri: str) -> TableState | None:
    """Bring a raw table to the declared columns; return its state, None where there is none."""
    engine, lake, source = context.engine, context.lake, context.use_case.sources[name]
    state = lake.state(uri)
    if state is None:
        return None
    found = engine.columns(engine.scan(state))
    before = state.facts.get("columns", list(found))
    new = [column for column in source.stored if column not in found]
    since = _since(state, [column for column in source.stored if column not in before])
    wider = _wider(name, source, found)
    if not new and not wider and since == state.facts.get("since", {}):
        return state
    facts = {**state.facts, "since": since, "columns": list(source.stored)}
    casts = ", ".join(f"CAST({quoted(column)} AS DOUBLE) AS {quoted(column)}" for column in wider)
    rows = f"SELECT *{f' REPLACE ({casts})' if wider else ''} FROM {engine.scan(state)}"
    nothing = "".join(
        f", CAST(NULL AS {stored_type(source, column)}) AS {quoted(column)}" for column in new
    )
    select = f"SELECT *{nothing} FROM ({rows}{'' if wider else ' LIMIT 0'})"
    lake.write(uri, engine.arrow(select), facts, "overwrite" if wider else "extend")
    return lake.state(uri)


def _since(state: TableState, columns: list[str]) -> dict[str, int]:
    """Return from which row on each column was read, with columns that are read from now on."""
    numbered = int(state.facts["rows"]) + int(state.facts.get("removed", 0))
    return {**state.facts.get("since", {}), **dict.fromkeys(columns, numbered)}


def _wider(name: str, source: Source, found: dict[str, str]) -> list[str]:
    """Return the columns whose declared type holds all that is stored, and more."""
    wider = []
    for column in source.stored:
        declared = stored_type(source, column)
        change = (found.get(column, declared), declared)
        if change in WIDER:
            wider.append(column)
        elif change[0] != declared:
            raise SourceError(
                f"source {name}: the declared type of a column is another than the stored one",
                where=f"sources.{name}.columns.{column}",
                expected=f"the stored type ({change[0]}), or float64 where int64 is stored",
                found=source.column(column).type,
                way_out="declare the type as it was, or deliver the values in a column of another "
                "name (docs/runbook.md#a-source-changes)",
            )
    return wider


def lacking(engine: Engine, source: Source, state: TableState, where: str) -> str:
    """Return the query of delivered rows that a table lacks, as a bag, by columns known then."""
    stored, every = engine.scan(state), quoted(*source.stored)
    since = {column: state.facts.get("since", {}).get(column, 0) for column in source.stored}
    marks = sorted({0, *since.values()}, reverse=True)
    newest = f"SELECT {every} FROM {stored} WHERE {where} AND _row_no >= {marks[0]}"
    left = f"SELECT {every} FROM _delivery WHERE {where} EXCEPT ALL {newest}"
    for first, end in zip(marks[1:], marks, strict=False):
        known = [column for column in source.stored if since[column] <= first]
        same = " AND ".join(
            f"d.{name} IS NOT DISTINCT FROM s.{name}" for name in map(quoted, known)
        )
        left = (
            f"SELECT {every} FROM (SELECT d.*, s._many FROM (SELECT *, row_number() OVER "
            f"(PARTITION BY {quoted(*known)} ORDER BY {every}) AS _nth FROM ({left})) AS d "
            f"LEFT JOIN (SELECT {quoted(*known)}, count(*) AS _many FROM {stored} WHERE {where} "
            f"AND _row_no >= {first} AND _row_no < {end} GROUP BY ALL) AS s ON {same} "
            "WHERE d._nth > coalesce(s._many, 0))"
        )
    return left


def kept_facts(source: Source, before: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about columns that go on from one commit to the next."""
    return {"since": before.get("since", {}), "columns": list(source.stored)}
