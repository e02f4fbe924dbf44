"""Historical features: what was known of given entities at given moments, exactly.

Every row of the result looks from its own as_of with the same definitions as training. Many rows
are computed in slices of entities, so that memory does not grow with their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.features.derived import with_derived
from mlops_pipeline.core.features.frames import EVENT_ROW, RowGuarantees, late_entity_frame
from mlops_pipeline.errors import NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use
from mlops_pipeline.lifecycle.context import AcceptedSource, Context, open_context
from mlops_pipeline.lifecycle.features.entity_rows import asked_period, register_asked
from mlops_pipeline.lifecycle.features.late_gather import STRETCH, Question, answers
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    register_accepted,
    row_guarantees,
)
from mlops_pipeline.stores.lake.engine import literal, quoted
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings

SLICE_VALUES = 200_000_000  # held in memory at once: 1.6 GB of numbers


def get_historical_features(
    use_case: UseCase, rows: Any, features: Sequence[str], *, settings: Settings | None = None
) -> Any:
    """Return the rows with features as they were known at each row's as_of.

    Parameters
    ----------
    rows : pandas.DataFrame or pyarrow.Table
        The entity key, `as_of` (UTC; times with a zone are converted), and, for request-time
        features, the source columns that they read. Other columns are kept.
    features : sequence of str
        Names of features or derived features; `entity:feature` is understood too.

    Returns
    -------
    pandas.DataFrame or pyarrow.Table
        As given: the rows in their order, and one column a feature. An entity that is not known
        stays, with missing values (counts are 0).

    Raises
    ------
    NotFoundError
        When a feature does not exist, naming the nearest, or the use case has no accepted data.
    DataError
        When a column is missing or of another type, or an as_of is missing or in the future.
    """
    import pyarrow as pa

    is_arrow = isinstance(rows, pa.Table)
    asked = rows if is_arrow else pa.Table.from_pandas(rows, preserve_index=False)
    with _opened(use_case, settings, features) as (context, accepted, names):
        context.engine.sql.register("_asked_input", asked)
        parts = list(_answers(context, accepted, names))
    found = pa.concat_tables(parts).sort_by(EVENT_ROW).drop_columns([EVENT_ROW])
    return found if is_arrow else found.to_pandas()


def write_historical_features(
    use_case: UseCase,
    rows: Path,
    features: Sequence[str],
    out: Path,
    *,
    settings: Settings | None = None,
) -> int:
    """Do the same from a Parquet file (CSV by its ending) to a Parquet file; return its rows.

    The file appears whole. The order of the rows is not kept.
    """
    import pyarrow.parquet as pq

    with _opened(use_case, settings, features) as (context, accepted, names):
        reader = "read_csv" if rows.suffix == ".csv" else "read_parquet"
        if not rows.is_file():
            raise NotFoundError("the file of entities does not exist", where=str(rows))
        context.engine.sql.execute(
            f"CREATE TEMP VIEW _asked_input AS SELECT * FROM {reader}({literal(str(rows))})"
        )
        part, count = out.with_name(f".{out.name}.part"), 0
        with ExitStack() as stack:
            writer: Any = None
            for answer in _answers(context, accepted, names):
                found = answer.drop_columns([EVENT_ROW])
                if writer is None:  # values of features seldom repeat: no dictionaries
                    writer = pq.ParquetWriter(part, found.schema, use_dictionary=False)
                    stack.enter_context(writer)
                writer.write_table(found)
                count += len(found)
        part.replace(out)
    return count


@contextmanager
def _opened(
    use_case: UseCase, settings: Settings | None, features: Sequence[str]
) -> Iterator[tuple[Context, dict[str, AcceptedSource], tuple[str, ...]]]:
    """Yield a context, what is accepted, and the features by name; their use is noted."""
    settings = settings or Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        accepted = accepted_sources(ops, use_case)
        names = feature_names(use_case, features)
        record_feature_use(ops, use_case.name, names, "history", now=settings.now())
    with open_context(use_case, settings) as context:
        yield context, accepted, names


def _answers(
    context: Context, accepted: Mapping[str, AcceptedSource], names: Sequence[str]
) -> Iterator[Any]:
    """Yield the answer to `_asked_input` as Arrow tables, one slice of its entities at a time."""
    use_case = narrowed(context.use_case, names)
    kept = register_asked(context, use_case)
    rows, period = asked_period(context, use_case)
    accepted = {name: accepted[name] for name in _sources(use_case)}
    register_accepted(context, accepted)
    facts = _ordered(context, use_case, row_guarantees(use_case, accepted))
    slices = _held_values(use_case, rows, accepted) // SLICE_VALUES + 1
    asked: Question | None = None
    for number in range(slices):
        tables = _register_slice(context, use_case, number, slices)
        if asked is None:
            frame, values = late_entity_frame(
                use_case, tables, tables["_asked_slice"], period, facts
            )
            asked = _compiled(context, use_case, frame, values, (names, kept))
        yield from answers(context.engine, asked)


def _held_values(use_case: UseCase, rows: int, accepted: Mapping[str, AcceptedSource]) -> int:
    """Return about how many values are in memory at once when there is one slice.

    Latest values are held once a row of their source; others twice an asked row: while they are
    grouped, and when they are found.
    """
    return sum(
        min(rows, accepted[view.source].rows) if column.aggregate == "last" else 2 * rows
        for view in use_case.views.values()
        for column in view.columns.values()
    )


def _compiled(
    context: Context,
    use_case: UseCase,
    frame: Any,
    values: Mapping[str, Any],
    shown: tuple[Sequence[str], Sequence[str]],
) -> Question:
    import ibis

    names, kept = shown
    key, compiled = use_case.entity.key, context.engine.ibis.compile
    given = {name: f"_kept_{index}" for index, name in enumerate(kept) if name not in names}
    made = [name for name in use_case.features if name in frame.columns]
    rows = frame.select(key, "as_of", EVENT_ROW, *given.values(), *made, *values)
    fields = {name: kind for name, kind in rows.schema().items() if name not in values}
    for table in values.values():
        fields |= {name: kind for name, kind in table.schema().items() if name != "_row_no"}
    stretch = ibis.table(fields, name=STRETCH)
    whole = with_derived(use_case, stretch)
    return Question(
        rows=str(compiled(rows.order_by(EVENT_ROW))),
        values={told_by: str(compiled(table)) for told_by, table in values.items()},
        completed=None if whole is stretch else str(compiled(whole)),
        shown={key: key, "as_of": "as_of", **given, **{n: n for n in (*names, EVENT_ROW)}},
    )


def _register_slice(
    context: Context, use_case: UseCase, number: int, slices: int
) -> dict[str, Any]:
    """Make views of a slice's asked rows and of the source rows of its entities."""
    key = quoted(use_case.entity.key)
    mine = f"hash({key}) % {slices} = {number}" if slices > 1 else "TRUE"
    found = {}
    for name in ("_asked", *_sources(use_case)):
        view = "_asked_slice" if name == "_asked" else f"_slice_of_{name}"
        context.engine.register(view, f"(SELECT * FROM {quoted(name)} WHERE {mine})")
        found["_asked_slice" if name == "_asked" else name] = context.engine.ibis.table(view)
    return found


def feature_names(use_case: UseCase, features: Sequence[str]) -> tuple[str, ...]:
    """Return the names without their entity."""
    prefix = f"{use_case.entity.name}:"
    found = []
    for given in features:
        name = given.removeprefix(prefix)
        if name not in use_case.features:
            known = [f"{prefix}{item}" for item in use_case.features]
            way_out = f"mlops features list {use_case.name}"
            raise NotFoundError.of(
                "feature", f"{prefix}{name}", known, where=use_case.name, way_out=way_out
            )
        found.append(name)
    return tuple(dict.fromkeys(found))


def narrowed(use_case: UseCase, names: Sequence[str]) -> UseCase:
    """Return the use case with no more features than these and those that they are made of."""
    needed = set(names)
    for name in reversed(use_case.derived):
        if name in needed:
            needed |= use_case.derived[name].expression.columns
    views = {
        label: view.model_copy(update={"columns": columns})
        for label, view in use_case.views.items()
        if (columns := {n: column for n, column in view.columns.items() if n in needed})
    }
    derived = {name: item for name, item in use_case.derived.items() if name in needed}
    return use_case.model_copy(update={"views": views, "derived": derived, "protected": {}})


def _sources(use_case: UseCase) -> list[str]:
    return list(dict.fromkeys(view.source for view in use_case.views.values()))


def _ordered(context: Context, use_case: UseCase, facts: RowGuarantees) -> RowGuarantees:
    """Add which sources' rows were all known when they happened."""
    found = set()
    for name in _sources(use_case):
        if name in facts.unique and name not in facts.revised:
            happened = quoted(use_case.sources[name].event_time)
            late = f"SELECT 1 FROM {quoted(name)} WHERE _available_at <> {happened} LIMIT 1"
            if not context.engine.query(late):
                found.add(name)
    return RowGuarantees(facts.revised, facts.unique, frozenset(found))
