"""Checks of one source: its times, key and rules name columns that exist, with values that fit.

Belongs here: what needs no other section. Checks across sections are use_case.py's.
"""

from collections.abc import Iterable
from datetime import datetime

from mlops_pipeline.config.tables import Freshness, InSet, MinRows, Rule, Scalar, Source
from mlops_pipeline.errors import did_you_mean, nearest_names


def check_source(where: str, source: Source) -> None:
    """Refuse a source that names columns it does not have, or values that they cannot hold.

    Raises
    ------
    ValueError
        Naming the key.
    """
    columns = source.columns
    for column in columns:
        if column.startswith("_"):
            raise ValueError(f"{where}.columns: {column!r}: names with a leading _ are the lake's")
    for key, name in (("event_time", source.event_time), ("available_at", source.available_at)):
        if name is not None:
            known(f"{where}.{key}", name, columns, "column of this source")
            if source.column(name).type not in ("timestamp", "date"):
                raise ValueError(f"{where}.{key}: {name} is not a timestamp or date")
    for column in source.key:
        known(f"{where}.key", column, columns, "column of this source")
    for index, rule in enumerate(source.rules):
        _check_rule(f"{where}.rules.{index}", source, rule)


def _check_rule(where: str, source: Source, rule: Rule) -> None:
    for column in _columns_judged(rule):
        known(where, column, source.columns, "column of this source")
    if isinstance(rule, InSet):
        for value in rule.values:
            check_value(f"{where}.values", source, rule.column, value)


def _columns_judged(rule: Rule) -> Iterable[str]:
    if rule.rule == "not_null":
        return rule.columns
    if rule.rule == "check":
        return sorted(rule.expression.columns)
    return () if isinstance(rule, MinRows | Freshness) else (rule.column,)


def check_value(where: str, source: Source, column: str, value: Scalar) -> None:
    """Refuse a value that a column of its type can never hold.

    Raises
    ------
    ValueError
        Naming the key, the value and the column's type.
    """
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
        raise ValueError(f"{where}: {value!r} is no {kind}, the type of column {column}{hint}")


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def known(where: str, name: str, names: Iterable[str], what: str) -> None:
    """Refuse a name that does not exist.

    Raises
    ------
    ValueError
        With the nearest existing name, or the first ones.
    """
    present = list(names)
    if name in present:
        return
    hint = did_you_mean(name, present) or f"known: {nearest_names(name, present)}"
    raise ValueError(f"{where}: {name!r} is no {what}; {hint}")
