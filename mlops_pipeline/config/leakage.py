"""What no feature may read: the outcome, identities, what is audited. Checked on the text alone.

Belongs here: leaks that a configuration shows. That no row from after as_of changes a value is
shown on the data, by lifecycle/features/leak_check.py; windows cannot reach past as_of, because an
offset shifts them into the past only.

A feature that only counts (`count`, `count_distinct`) carries no value of the column it counts, so
it may count entity keys and personal columns; what a protected attribute is made of, it may not.
"""

from collections.abc import Mapping

from mlops_pipeline.config.sections import Read, UseCaseSections


def check_leakage(use_case: UseCaseSections) -> None:
    """Refuse (ValueError) features that read what they must not.

    - The label, when it was known, and the treatment: nowhere (population and protected attributes
      included, since both choose or describe rows by it).
    - In a `request_time` view also the source's availability: it lies after the row's own time.
    - The entity key and personal columns as values: an identity is memorised.
    - Columns that a protected attribute is made of, and, in derived features, protected attributes
      themselves. With `as_input: true` the attribute declares its columns as inputs.
    """
    outcome = _outcome_columns(use_case)
    for read in use_case.reads:
        if read.source == use_case.label.source:
            for column in sorted(read.columns & set(outcome)):
                raise ValueError(
                    f"{read.where}: reads {outcome[column]} {column}; that leaks the outcome (a "
                    "source of its own, with its own availability, can tell of earlier outcomes)"
                )
        if read.feature is not None:
            _check_future(use_case, read)
            _check_protected(use_case, read)
            _check_identity(use_case, read)
    for name, derived in use_case.derived.items():
        for used in sorted(derived.expression.columns & set(use_case.protected)):
            raise ValueError(
                f"derived.{name}.expression: reads the protected attribute {used}; no feature is "
                "derived from one"
            )


def _outcome_columns(use_case: UseCaseSections) -> Mapping[str, str]:
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


def _check_future(use_case: UseCaseSections, read: Read) -> None:
    """Refuse a request-time feature that reads when its own row became known."""
    source = use_case.sources[read.source]
    is_request_time = read.feature is not None and read.feature.aggregate is None
    if not is_request_time or read.is_filter or source.availability == source.event_time:
        return
    if source.availability in read.columns:
        raise ValueError(
            f"{read.where}: reads {source.availability}, when the row became known; at its own "
            "time that lies in the future"
        )


def _check_protected(use_case: UseCaseSections, read: Read) -> None:
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


def _check_identity(use_case: UseCaseSections, read: Read) -> None:
    key = use_case.entity.key
    if read.is_value and key in read.columns:
        raise ValueError(
            f"{read.where}: reads the entity key {key}; who an entity is says nothing of new ones "
            "(count and count_distinct of it are fine)"
        )
    source, declared = use_case.sources[read.source], _declared(use_case, read.source)
    for column in sorted(read.columns - declared - {key}):
        if source.column(column).personal and (read.is_value or read.is_filter):
            raise ValueError(
                f"{read.where}: reads the personal column {column}; declare it as a protected "
                "attribute with as_input: true (count and count_distinct of it are fine)"
            )


def _declared(use_case: UseCaseSections, source: str) -> frozenset[str]:
    """Return the source's columns that declared protected attributes are made of."""
    return frozenset(
        column
        for attribute in use_case.protected.values()
        if attribute.as_input and attribute.source == source
        for column in attribute.of.columns
    )
