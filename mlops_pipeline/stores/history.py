"""Historical features: what was known of given entities at given moments, exactly.

Every row of the result looks from its own as_of with the same definitions as training. Values are
computed part by part into tables of the asked rows' order (latest values by one join on time,
windows in slices of rows), then read side by side: memory does not grow with features times rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_pipeline.config.expressions import columns_of, parse
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.data.periods import Period
from mlops_pipeline.errors import DataError, NotFoundError
from mlops_pipeline.features.frames import EVENT_ROW, Asked, Facts, asked_parts, completed
from mlops_pipeline.stores.engine import literal, quoted
from mlops_pipeline.stores.opsdb import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline.stores.validation import AcceptedSource, register_accepted, row_facts
from mlops_pipeline.stores.workspace import Workspace, open_workspace

SLICE_ROWS = 500_000  # asked rows whose windows are computed at once
ARROW_TYPES = {"int64": ("int",), "string": ("string", "large_string", "dictionary")}


@dataclass(frozen=True)
class _Question:
    """The asked rows, registered, and what is asked of them."""

    use_case: UseCase
    names: tuple[str, ...]
    rows: int
    period: Period


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
    with _opened(use_case, settings) as (work, accepted):
        work.engine.sql.register("_asked_input", asked)
        frame = _computed(work, accepted, features)
        found = work.engine.sql.sql(f"SELECT * FROM {frame}").to_arrow_table()
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

    The file appears whole.
    """
    with _opened(use_case, settings) as (work, accepted):
        reader = "read_csv" if rows.suffix == ".csv" else "read_parquet"
        if not rows.is_file():
            raise NotFoundError("the file of entities does not exist", where=str(rows))
        work.engine.sql.execute(
            f"CREATE TEMP VIEW _asked_input AS SELECT * FROM {reader}({literal(str(rows))})"
        )
        frame = _computed(work, accepted, features)
        part = out.with_name(f".{out.name}.part")
        count = work.engine.query(f"COPY {frame} TO {literal(str(part))} (FORMAT parquet)")
        part.replace(out)
    return int(count[0][0])


@contextmanager
def _opened(
    use_case: UseCase, settings: Settings | None
) -> Iterator[tuple[Workspace, dict[str, AcceptedSource]]]:
    settings = settings or Settings.from_environment()
    with OpsDatabase.open(settings.database_url) as ops:
        pointer = ops.get_pointer(use_case.name, "accepted")
    if pointer is None:
        raise NotFoundError(
            "there are no accepted data yet",
            where=use_case.name,
            way_out=f"mlops run {use_case.name}, or materialize {use_case.name}/validated_data",
        )
    accepted = {name: AcceptedSource.from_dict(item) for name, item in pointer.value.items()}
    with open_workspace(use_case, settings) as work:
        work.engine.sql.execute("SET preserve_insertion_order = true")
        yield work, accepted


def _computed(
    work: Workspace, accepted: Mapping[str, AcceptedSource], features: Sequence[str]
) -> str:
    """Compute what is asked of `_asked_input`; return the name of the view of the result."""
    names = feature_names(work.use_case, features)
    use_case = narrowed(work.use_case, names)
    kept = _register_asked(work, use_case)
    question = _question(work, use_case, names)
    tables = register_accepted(work, {name: accepted[name] for name in _sources(use_case)})
    facts = _ordered(work, use_case, row_facts(use_case, accepted))
    asked = Asked(work.engine.ibis.table("_asked"), work.engine.ibis.table("_asked_slice"),
                  question.period)  # fmt: skip
    latest, others = asked_parts(use_case, tables, asked, facts)
    parts = [_whole_part(work, index, part) for index, part in enumerate(latest)]
    parts += [
        _sliced_part(work, len(latest) + index, part, question.rows)
        for index, part in enumerate(others)
    ]
    return _side_by_side(work, question, parts, kept)


def feature_names(use_case: UseCase, features: Sequence[str]) -> tuple[str, ...]:
    """Return the names without their entity.

    Raises
    ------
    NotFoundError
        For a feature that does not exist, naming the nearest.
    """
    import difflib

    found = []
    for given in features:
        entity, _, name = given.rpartition(":")
        if name in use_case.features and entity in ("", use_case.entity.name):
            found.append(name)
            continue
        near = difflib.get_close_matches(name, use_case.features, n=1)
        raise NotFoundError(
            f"there is no feature {given!r}",
            where=use_case.name,
            expected=f"features of {use_case.entity.name}",
            way_out=f"did you mean {use_case.entity.name}:{near[0]}?"
            if near
            else f"mlops features list {use_case.name}",
        )
    return tuple(dict.fromkeys(found))


def narrowed(use_case: UseCase, names: Sequence[str]) -> UseCase:
    """Return the use case with no more features than these and those that they are made of."""
    needed = set(names)
    for name in reversed(use_case.derived):
        if name in needed:
            needed |= columns_of(parse(use_case.derived[name].expression))
    views = {
        label: view.model_copy(update={"columns": columns})
        for label, view in use_case.views.items()
        if (columns := {n: column for n, column in view.columns.items() if n in needed})
    }
    derived = {name: item for name, item in use_case.derived.items() if name in needed}
    return use_case.model_copy(update={"views": views, "derived": derived, "protected": {}})


def _sources(use_case: UseCase) -> list[str]:
    return list(dict.fromkeys(view.source for view in use_case.views.values()))


def _register_asked(work: Workspace, use_case: UseCase) -> list[str]:
    """Make `_asked`: the input with a number of each row; return the columns to keep."""
    engine = work.engine
    described = engine.query("DESCRIBE _asked_input")
    types = {row[0]: str(row[1]) for row in described}
    key, kind = use_case.entity.key, use_case.sources[use_case.population.source]
    _check_columns(use_case, types)
    cast = {"int64": "BIGINT", "string": "VARCHAR"}[kind.column(key).type]
    as_of = "as_of AT TIME ZONE 'UTC'" if "TIME ZONE" in types["as_of"] else "as_of::TIMESTAMP"
    others = [name for name in types if name not in (key, "as_of", EVENT_ROW)]
    kept = "".join(f", {quoted(name)}" for name in others)
    engine.sql.execute(
        f"CREATE TEMP TABLE _asked AS SELECT {quoted(key)}::{cast} AS {quoted(key)}, "
        f"{as_of} AS as_of, row_number() OVER () - 1 AS {EVENT_ROW}{kept} FROM _asked_input"
    )
    engine.sql.execute("CREATE TEMP VIEW _asked_slice AS SELECT * FROM _asked")
    return others


def _check_columns(use_case: UseCase, types: Mapping[str, str]) -> None:
    needed = {use_case.entity.key, "as_of"}
    for view in use_case.views.values():
        if view.request_time:
            for column in view.columns.values():
                needed |= columns_of(parse(str(column.of)))
    missing = sorted(needed - set(types))
    if missing:
        raise DataError(
            "the rows lack a column",
            where=", ".join(missing),
            expected="the entity key, as_of, and what request-time features read",
            found=", ".join(types),
        )
    if not types["as_of"].startswith(("TIMESTAMP", "DATE")):
        raise DataError(
            "as_of is no time", where="as_of", expected="timestamps (UTC)", found=types["as_of"]
        )


def _question(work: Workspace, use_case: UseCase, names: tuple[str, ...]) -> _Question:
    key = quoted(use_case.entity.key)
    rows, first, last, nulls = work.engine.query(
        f"SELECT count(*), min(as_of), max(as_of), "
        f"count(*) FILTER (as_of IS NULL OR {key} IS NULL) FROM _asked"
    )[0]
    now = work.settings.now()
    if nulls:
        raise DataError("rows lack their entity or as_of", where="rows", found=f"{nulls:,} rows")
    if rows and last.replace(tzinfo=UTC) > now:
        raise DataError(
            "an as_of is in the future",
            expected=f"at most {now.isoformat()}",
            found=last.isoformat(),
        )
    start = first.replace(tzinfo=UTC) if rows else datetime(1970, 1, 1, tzinfo=UTC)
    end = (last.replace(tzinfo=UTC) if rows else start) + timedelta(microseconds=1)
    return _Question(use_case, names, int(rows), Period(start, end))


def _ordered(work: Workspace, use_case: UseCase, facts: Facts) -> Facts:
    """Add which sources' rows were all known when they happened."""
    found = set()
    for name in _sources(use_case):
        if name in facts.unique and name not in facts.revised:
            happened = quoted(use_case.sources[name].event_time)
            late = f"SELECT 1 FROM {quoted(name)} WHERE _available_at <> {happened} LIMIT 1"
            if not work.engine.query(late):
                found.add(name)
    return Facts(facts.revised, facts.unique, frozenset(found))


def _whole_part(work: Workspace, index: int, part: Any) -> str:
    """Compute a part that has every asked row, in their order."""
    name = f"_part_{index}"
    statement = work.engine.ibis.compile(part)
    work.engine.sql.execute(
        f"CREATE TEMP TABLE {name} AS SELECT * EXCLUDE (_event_row) FROM ({statement}) "
        "ORDER BY _event_row"
    )
    return name


def _sliced_part(work: Workspace, index: int, part: Any, rows: int) -> str:
    """Compute a part that has the asked rows that saw something, slice by slice."""
    name, engine = f"_part_{index}", work.engine
    statement = engine.ibis.compile(part)
    select = (
        f"SELECT p.* EXCLUDE (_event_row) FROM _asked_slice AS a LEFT JOIN ({statement}) AS p "
        f"ON p._event_row = a.{EVENT_ROW} ORDER BY a.{EVENT_ROW}"
    )
    engine.sql.execute(f"CREATE TEMP TABLE {name} AS {select} LIMIT 0")
    for start in range(0, rows, SLICE_ROWS):
        engine.sql.execute(
            "CREATE OR REPLACE TEMP VIEW _asked_slice AS SELECT * FROM _asked "
            f"WHERE {EVENT_ROW} >= {start} AND {EVENT_ROW} < {start + SLICE_ROWS}"
        )
        engine.sql.execute(f"INSERT INTO {name} {select}")
    return name


def _side_by_side(
    work: Workspace, question: _Question, parts: Sequence[str], kept: Sequence[str]
) -> str:
    """Return a view of the asked rows beside their features; the parts have the rows' order."""
    engine, use_case = work.engine, question.use_case
    joined = " ".join(f"POSITIONAL JOIN {name}" for name in parts)
    asked = [use_case.entity.key, "as_of", EVENT_ROW]
    features = [name for view in use_case.views.values() for name in view.columns]
    columns = [f"_asked.{quoted(name)}" for name in asked] + [quoted(name) for name in features]
    columns += [f"_asked.{quoted(name)} AS {quoted('_kept_' + name)}" for name in kept]
    engine.sql.execute(
        f"CREATE TEMP VIEW _beside AS SELECT {', '.join(columns)} FROM _asked {joined}"
    )
    frame = completed(use_case, engine.ibis.table("_beside"))
    shown = [use_case.entity.key, "as_of"]
    keep = {name: frame[f"_kept_{name}"] for name in kept if name not in question.names}
    statement = engine.ibis.compile(
        frame.select(*shown, **keep, **{n: frame[n] for n in question.names})
    )
    engine.sql.execute(f"CREATE TEMP VIEW _history AS {statement}")
    return "_history"
