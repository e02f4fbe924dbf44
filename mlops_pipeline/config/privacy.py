"""What of a use case tells of one person, and so is shown row by row nowhere but in the lake.

Belongs here: which columns and features that are. That no feature reads them undeclared is
leakage.py's.
"""

from mlops_pipeline.config.base import tree
from mlops_pipeline.config.features import COUNTS
from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.spec.grammar import columns_of


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
        for column in columns_of(tree(attribute.of)) - {source.event_time, source.availability}
    }
    return frozenset(({use_case.entity.key} & set(source.columns)) | personal | audited)


def sensitive_features(use_case: UseCase) -> frozenset[str]:
    """Return protected attributes, and the features that carry values of hidden columns.

    They are inputs only where `as_input: true` declares them. A count carries no value of what it
    counts, unless its `where` reads it.
    """
    found = set(use_case.protected)
    for view in use_case.views.values():
        hidden = hidden_columns(use_case, view.source)
        for name, column in view.columns.items():
            texts = [column.where, None if column.aggregate in COUNTS else column.of]
            if any(columns_of(tree(text)) & hidden for text in texts if text is not None):
                found.add(name)
    for name, derived in use_case.derived.items():  # each is defined below those it uses
        if columns_of(tree(derived.expression)) & found:
            found.add(name)
    return frozenset(found)
