"""What dates alone say of a training: refused here, before a period of features is built."""

from datetime import UTC, datetime

from mlops_pipeline.core.data.frame import split_periods
from mlops_pipeline.core.data.periods import column_labels, no_label_yet
from mlops_pipeline.lifecycle.context import Context, Snapshot
from mlops_pipeline.lifecycle.features.offline import (
    finished_periods,
    periods_with_labels,
    use_case_periods,
)
from mlops_pipeline.lifecycle.ingest.accepted import register_accepted, with_revisions

FAR = datetime(9000, 1, 1, tzinfo=UTC)


def refuse_untrainable(context: Context, snapshot: Snapshot) -> None:
    """Raise the DataError or SplitError in which a training as of the snapshot would end."""
    use_case = context.use_case
    tables = register_accepted(context, snapshot.accepted)
    every = use_case_periods(context, snapshot.as_of)
    labelled = periods_with_labels(context, snapshot)
    if every and not labelled:
        raise no_label_yet(use_case, every[0], snapshot.as_of)
    if use_case.label.kind == "column":
        revised = with_revisions(snapshot.accepted)
        labels = context.engine.compile(column_labels(use_case, tables, FAR, revised=revised))
        select = f"SELECT min(known_at) FROM ({labels}) WHERE label IS NOT NULL"
        first = context.engine.query(select)[0][0]
        if first is not None and first.replace(tzinfo=UTC) > snapshot.as_of:
            raise no_label_yet(use_case, every[0], snapshot.as_of, first.replace(tzinfo=UTC))
    if use_case.split.method == "time" and every:
        done = finished_periods(context)  # an empty one is no part of a split
        kept = [item for item in labelled if item.name not in done or done[item.name].rows]
        split_periods(use_case, kept)
