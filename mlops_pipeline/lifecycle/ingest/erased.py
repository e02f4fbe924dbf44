"""Keeping forgotten people out: rows of a delivery whose entity has a tombstone.

The pseudonyms of all distinct keys are computed in SQL; without a tombstone nothing is read.
"""

from collections.abc import Collection
from dataclasses import dataclass

from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.pseudonyms import LENGTH, pads


@dataclass(frozen=True)
class Kept:
    """The query of the rows that stay, and how many rows do not."""

    select: str
    dropped: int


def without_forgotten(
    context: Context, source: str, select: str, forgotten: Collection[str]
) -> Kept:
    """Return a query of a source's rows without those of forgotten entities.

    Parameters
    ----------
    forgotten : collection of str
        Pseudonyms, from the ops database.
    """
    key = context.use_case.entity.key
    if not forgotten or key not in context.use_case.sources[source].columns:
        return Kept(select, 0)
    sql, name, gone = context.engine.sql, quoted(key), f"_forgotten_{source}"
    sql.execute(
        "CREATE OR REPLACE TEMP TABLE _tombstones AS SELECT unnest(?::VARCHAR[]) AS pseudonym, "
        "?::BLOB AS inside, ?::BLOB AS outside",
        [sorted(forgotten), *pads(context.settings)],
    )
    pseudonym = (
        f"left(sha256(outside || unhex(sha256(inside || encode({name}::VARCHAR)))), {LENGTH})"
    )
    sql.execute(
        f"CREATE OR REPLACE TEMP TABLE {gone} AS SELECT {name} FROM "
        f"(SELECT {name}, {pseudonym} AS pseudonym FROM "
        f"(SELECT DISTINCT {name} FROM ({select}) WHERE {name} IS NOT NULL), "
        f"(SELECT DISTINCT inside, outside FROM _tombstones)) "
        f"SEMI JOIN _tombstones USING (pseudonym)"
    )
    dropped = context.engine.query(
        f"SELECT count(*) FROM ({select}) SEMI JOIN {gone} USING ({name})"
    )
    if not dropped[0][0]:
        return Kept(select, 0)
    return Kept(f"SELECT * FROM ({select}) ANTI JOIN {gone} USING ({name})", int(dropped[0][0]))
