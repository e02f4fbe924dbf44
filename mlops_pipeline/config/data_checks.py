"""What has to hold of the data's sections: sources, entity key, grid, label; see checks.py."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from mlops_pipeline.config.tables import SUFFIXES
from mlops_pipeline.errors import did_you_mean, nearest_names
from mlops_pipeline.spec import rules
from mlops_pipeline.spec.section import Scalar

if TYPE_CHECKING:
    from mlops_pipeline.config.tables import Source
    from mlops_pipeline.config.use_case import UseCase

Problems = Iterator[str]


def unknown(where: str, names: Iterable[str], known: Iterable[str], what: str) -> Problems:
    """Yield the names that are not known, each with the nearest."""
    present = list(known)
    for name in names:
        if name not in present:
            hint = did_you_mean(name, present) or f"known: {nearest_names(name, present)}"
            yield f"{where}: {name!r} is no {what}; {hint}"


def unknown_columns(
    use_case: "UseCase", where: str, columns: Iterable[str], source: str
) -> Problems:
    """Yield the columns that a source does not have."""
    known = use_case.sources[source].columns
    return unknown(where, columns, known, f"column of source {source}")


def source_problems(use_case: "UseCase") -> Problems:
    """Yield what is wrong with the sources, and with what names them."""
    used = {
        "population.source": use_case.population.source,
        "label.source": use_case.label.source,
        **{f"label.also[{number}]": name for number, name in enumerate(use_case.label.also)},
        "population.leaves_with": use_case.population.leaves_with,
        **{f"views.{name}.source": view.source for name, view in use_case.views.items()},
        **{f"protected.{name}.source": item.source for name, item in use_case.protected.items()},
    }
    named = {where: name for where, name in used.items() if name is not None}
    for where, name in named.items():
        yield from unknown(where, [name], use_case.sources, "source")
    for name, source in use_case.sources.items():
        yield from _source(f"sources.{name}", source)
        if source.event_time is None:
            yield from _timeless(use_case, f"sources.{name}", source)
    for name in dict.fromkeys(named.values()):
        yield from _key(use_case, name)


def _source(where: str, source: "Source") -> Problems:
    if "://" in source.uri:
        scheme = source.uri.partition("://")[0]
        yield (
            f"{where}.uri: {scheme}:// is not read; expected a path of this machine (mount the "
            "bucket, or copy a table's rows into files)"
        )
    ends_like = [name for name, endings in SUFFIXES.items() if source.uri.endswith(endings)]
    if ends_like and source.format not in ends_like:
        yield f"{where}.format: {source.format}, but the uri {source.uri} is of {ends_like[0]}"
    for column in source.columns:
        if column.startswith("_"):
            yield f"{where}.columns: {column!r}: names with a leading _ are the lake's"
    for key, time in (("event_time", source.event_time), ("available_at", source.available_at)):
        if time is not None:
            yield from unknown(f"{where}.{key}", [time], source.columns, "column of this source")
            if source.column(time).type not in ("timestamp", "date"):
                yield f"{where}.{key}: {time} is not a timestamp or date"
    yield from unknown(f"{where}.key", source.key, source.columns, "column of this source")
    for index, rule in enumerate(source.rules):
        place = f"{where}.rules.{index}"
        yield from unknown(place, _judged(rule), source.columns, "column of this source")
        yield from _rule_values(place, source, rule)


def _rule_values(place: str, source: "Source", rule: rules.SourceRule) -> Problems:
    match rule:
        case rules.InSet(column=column, values=values):
            for value in values:
                yield from _misfit(f"{place}.values", source, column, value)
        case rules.ClassBalance(column=column, positive=positive):
            yield from _misfit(f"{place}.positive", source, column, positive)
        case rules.Range(column=column):
            if (kind := source.column(column).type) not in ("int64", "float64"):
                yield f"{place}.column: {column} is no number but {kind}"


def _timeless(use_case: "UseCase", where: str, source: "Source") -> Problems:
    """Yield what cannot be of a table without time: it says what is so, not since when."""
    time, rule = f"{where}.event_time", use_case.population
    if use_case.grid.every != "once":
        yield f"{time}: required unless `grid.every: once`"
    if not source.key:
        yield f"{where}.key: required without event_time: a row that changes is known by its key"
    if source.available_at is None and any(
        isinstance(item, rules.Freshness) for item in source.rules
    ):
        yield f"{where}.rules: `freshness` needs event_time or available_at"
    if rule.active_within_days and use_case.sources[rule.source] is source:
        yield f"population.active_within_days: needs {time}"
    for view_name, view in use_case.views.items():
        for name, column in view.columns.items():
            is_aged = str(column.aggregate).startswith("days_since")
            looks_back = is_aged or column.reach is not None or column.offset_days
            if looks_back and use_case.sources[view.source] is source:
                yield f"views.{view_name}.columns.{name}: looks back, which needs {time}"


def _judged(rule: rules.SourceRule) -> Iterable[str]:
    match rule:
        case rules.NotNull(columns=columns):
            return columns
        case rules.Check(expression=expression):
            return sorted(expression.columns)
        case rules.MinRows() | rules.Freshness():
            return ()
    return (rule.column,)


def _misfit(where: str, source: "Source", column: str, value: Scalar) -> Problems:
    kind = source.column(column).type
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "boolean":
        fits = isinstance(value, bool) or value in (0, 1)
    elif kind in ("timestamp", "date"):
        fits = isinstance(value, str) and _is_time(value)
    elif kind == "string":
        fits = isinstance(value, str)
    else:
        fits = is_number and (kind == "float64" or float(value).is_integer())
    if not fits:
        hint = "; put it in quotes" if kind == "string" else ""
        yield f"{where}: {value!r} is no {kind}, the type of column {column}{hint}"


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _key(use_case: "UseCase", name: str) -> Problems:
    key, home = use_case.entity.key, use_case.population.source
    for source in (name, home):
        where = f"sources.{source}.columns (entity.key)"
        yield from unknown_columns(use_case, where, [key], source)
    here, there = (use_case.sources[source].column(key).type for source in (name, home))
    if here != there:
        yield (
            f"sources.{name}.columns.{key}: the entity key has type {here} here and {there} in "
            f"{home}; the two cannot be joined"
        )


def label_and_grid_problems(use_case: "UseCase") -> Problems:
    """Yield what is wrong with label and grid, and their fit."""
    label = use_case.label
    yield from _grid(use_case)
    if label.kind == "column":
        yield from _label_column(use_case)
    elif not label.horizon_days:
        yield f"label.horizon_days: required for `kind: {label.kind}`"
    if len(set(label.sources)) < len(label.sources):
        yield "label.also: names a source of the label twice"
    if label.where:
        columns = sorted(label.where.columns)
        for name in label.sources:
            yield from unknown_columns(use_case, "label.where", columns, name)


def _grid(use_case: "UseCase") -> Problems:
    grid, label = use_case.grid, use_case.label
    if grid.start is None and grid.every not in ("event", "once"):
        yield "grid.start: required unless `every` is `event` or `once`"
    if grid.every != "once":
        return
    if grid.start is None and label.kind != "column":
        yield f"grid.start: required for `kind: {label.kind}`: its horizon begins there"
    if use_case.split.method == "time":
        yield "split.method: `time` needs several periods and `every: once` has one; use `random`"


def _label_column(use_case: "UseCase") -> Problems:
    label, grid = use_case.label, use_case.grid
    if label.column is None:
        yield "label.column: required for `kind: column`"
        return
    named = [item for item in (label.column, label.available_at, label.treatment) if item]
    yield from unknown_columns(use_case, "label", named, label.source)
    source, key = use_case.sources[label.source], use_case.entity.key
    if grid.every not in ("event", "once"):
        yield "label.kind: `column` needs `grid.every: event` or `once`"
    if grid.every == "once" and source.key != (key,):
        yield f"sources.{label.source}.key: has to be [{key}]: one label of each on a grid `once`"
    for name, value in (("positive", label.positive), ("negative", label.negative)):
        yield from _misfit(f"label.{name}", source, label.column, value)
    for name in label.also:
        yield from _further_label(use_case, name, label.column)


def _further_label(use_case: "UseCase", name: str, column: str) -> Problems:
    """Yield what keeps a source from labelling the rows of the label's first source."""
    home, source = use_case.sources[use_case.label.source], use_case.sources[name]
    key = home.key or (use_case.entity.key, source.happened)
    if source.key != key:
        yield (
            f"sources.{name}.key: has to be [{', '.join(key)}]: one label of each row of "
            f"{use_case.label.source}"
        )
    named = [column, *home.key]
    yield from unknown_columns(use_case, "label.also", named, name)
    for same in named:
        if same in source.columns and source.column(same).type != home.column(same).type:
            yield (
                f"sources.{name}.columns.{same}: has type {source.column(same).type} here and "
                f"{home.column(same).type} in {use_case.label.source}"
            )
