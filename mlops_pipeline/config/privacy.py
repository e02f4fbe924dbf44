"""What of a use case tells of one person, and so is shown row by row nowhere but in the lake.

Belongs here: which columns and features that are. That no feature reads them undeclared is
leakage.py's.
"""

from mlops_pipeline.config.use_case import UseCase


def hidden_columns(use_case: UseCase, source_name: str) -> frozenset[str]:
    """Return the columns of a source whose values no page, log, error or example may show.

    The entity key, personal columns, and what protected attributes are made of; times are shown.
    """
    source = use_case.sources[source_name]
    personal = {name for name in source.columns if source.column(name).personal}
    audited = {
        column
        for attribute in use_case.protected.values()
        if attribute.source == source_name
        for column in attribute.of.columns - {source.event_time, source.availability}
    }
    return frozenset(({use_case.entity.key} & set(source.columns)) | personal | audited)


def sensitive_features(use_case: UseCase, *, with_counts: bool = False) -> frozenset[str]:
    """Return protected attributes, and the features that carry values of hidden columns.

    They are inputs only where `as_input: true` declares them. A count carries no value of what it
    counts, unless its `where` reads it; `with_counts`: where not even how many there are is told.
    """
    found = set(use_case.protected)
    for view in use_case.views.values():
        hidden = hidden_columns(use_case, view.source)
        for name, column in view.columns.items():
            read = column.reads
            if column.is_count and not with_counts:
                read = column.where.columns if column.where else frozenset()
            if read & hidden:
                found.add(name)
    return frozenset(use_case.with_dependents(found))
