"""What no feature may read: the outcome, identities, what is audited. Checked on the text alone.

Belongs here: leaks that a configuration shows. That no row from after as_of changes a value is
shown on the data, by lifecycle/features/leak_check.py; windows cannot reach past as_of, because an
offset shifts them into the past only.

A feature that only counts (`count`, `count_distinct`) carries no value of the column it counts, so
it may count entity keys and personal columns; what a protected attribute is made of, it may not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_pipeline.spec.grammar import Expression

if TYPE_CHECKING:
    from mlops_pipeline.config.use_case import UseCase


@dataclass(frozen=True)
class _Read:
    """An expression of the configuration and the source columns that it reads."""

    where: str
    source: str
    columns: frozenset[str]


def check_leakage(use_case: "UseCase") -> None:
    """Refuse features that read what they must not.

    - The label, when it was known, and the treatment: nowhere (population and protected attributes
      included, since both choose or describe rows by it).
    - In a `request_time` view also the source's availability: it lies after the row's own time.
    - The entity key and personal columns as values: an identity is learnt by heart.
    - Columns that a protected attribute is made of, and, in derived features, protected attributes
      themselves. With `as_input: true` the attribute declares its columns as inputs.

    Raises
    ------
    ValueError
        Naming the key and the column.
    """
    _check_outcome(use_case)
    for view_name, view in use_case.views.items():
        for name, column in view.columns.items():
            where = f"views.{view_name}.columns.{name}"
            for key, text in (("of", column.of), ("where", column.where)):
                if text is not None:
                    read = _read(f"{where}.{key}", view.source, text)
                    _check_protected(use_case, read)
                    _check_identity(use_case, read, is_value=key == "of" and not column.is_count)
    for name, derived in use_case.derived.items():
        for used in sorted(derived.expression.columns & set(use_case.protected)):
            raise ValueError(
                f"derived.{name}.expression: reads the protected attribute {used}; no feature is "
                "derived from one"
            )


def _read(where: str, source: str, expression: Expression) -> _Read:
    return _Read(where, source, expression.columns)


# the outcome


def _check_outcome(use_case: "UseCase") -> None:
    outcome = _outcome_columns(use_case)
    for read in _every_read(use_case):
        for column in sorted(read.columns & set(outcome)):
            if read.source == use_case.label.source:
                raise ValueError(
                    f"{read.where}: reads {outcome[column]} {column}; that leaks the outcome (a "
                    "source of its own, with its own availability, can tell of earlier outcomes)"
                )
    for view_name, view in use_case.views.items():
        source = use_case.sources[view.source]
        if not view.request_time or source.availability == source.event_time:
            continue
        for name, feature in view.columns.items():
            if feature.of and source.availability in feature.of.columns:
                raise ValueError(
                    f"views.{view_name}.columns.{name}.of: reads {source.availability}, when the "
                    "row became known; at its own time that lies in the future"
                )


def _outcome_columns(use_case: "UseCase") -> Mapping[str, str]:
    """Return {column of the label's source: what it is}, for labels that are a column."""
    label = use_case.label
    if label.kind != "column":
        return {}
    source = use_case.sources[label.source]
    named = {
        label.treatment: "the treatment column",
        label.available_at: "the label's availability",
        label.column: "the label column",
    }
    row_times = (source.event_time, source.available_at)
    return {name: what for name, what in named.items() if name and name not in row_times}


def _every_read(use_case: "UseCase") -> Iterator[_Read]:
    rule = use_case.population
    if rule.where is not None:
        yield _read("population.where", rule.source, rule.where)
    for view_name, view in use_case.views.items():
        for name, column in view.columns.items():
            for key, text in (("of", column.of), ("where", column.where)):
                if text is not None:
                    yield _read(f"views.{view_name}.columns.{name}.{key}", view.source, text)
    for name, attribute in use_case.protected.items():
        yield _read(f"protected.{name}.of", attribute.source, attribute.of)


# people


def _check_protected(use_case: "UseCase", read: _Read) -> None:
    declared = _declared(use_case, read.source)
    source = use_case.sources[read.source]
    row_itself = {use_case.entity.key, source.event_time, source.availability}
    for name, attribute in use_case.protected.items():
        if attribute.source != read.source:
            continue
        made_of = attribute.of.columns - row_itself - declared
        for column in sorted(read.columns & made_of):
            raise ValueError(
                f"{read.where}: reads {column}, which the protected attribute {name} is made of; "
                f"leave it out, or declare protected.{name}.as_input: true"
            )


def _check_identity(use_case: "UseCase", read: _Read, *, is_value: bool) -> None:
    key = use_case.entity.key
    if is_value and key in read.columns:
        raise ValueError(
            f"{read.where}: reads the entity key {key}; who an entity is says nothing of new ones "
            "(count and count_distinct of it are fine)"
        )
    source, declared = use_case.sources[read.source], _declared(use_case, read.source)
    for column in sorted(read.columns - declared - {key}):
        is_personal = column in source.columns and source.column(column).personal
        if is_personal and (is_value or read.where.endswith(".where")):
            raise ValueError(
                f"{read.where}: reads the personal column {column}; declare it as a protected "
                "attribute with as_input: true (count and count_distinct of it are fine)"
            )


def _declared(use_case: "UseCase", source: str) -> frozenset[str]:
    """Return the source's columns that declared protected attributes are made of."""
    return frozenset(
        column
        for attribute in use_case.protected.values()
        if attribute.as_input and attribute.source == source
        for column in attribute.of.columns
    )
