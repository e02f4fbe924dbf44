"""What two versions said of the same people, side by side, with what became of them.

The log has the answers and the scores of the version that did not answer; labels and protected
attributes are joined from the lake here and kept nowhere. Who was in the canary follows from the
stages of then and the assignment, so an answer that became the default counts for its side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_pipeline.core.data.periods import column_labels, label_events
from mlops_pipeline.core.metrics.metrics import Floats
from mlops_pipeline.core.rollout.assignment import BUCKETS, bucket
from mlops_pipeline.core.rollout.evidence import Pairs, Scored
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.lifecycle.batch_log import CALLER
from mlops_pipeline.lifecycle.context import Accepted, Context
from mlops_pipeline.lifecycle.features.offline import event_label, features_uri, in_horizon
from mlops_pipeline.lifecycle.features.online.layout import to_us
from mlops_pipeline.lifecycle.ingest.accepted import (
    accepted_sources,
    decisive_marks,
    register_accepted,
    with_revisions,
)
from mlops_pipeline.lifecycle.rollouts import policy_of, rollout_events
from mlops_pipeline.stores.lake.engine import quoted
from mlops_pipeline.stores.log_pairs import answers_between
from mlops_pipeline.stores.predictions import PredictionLog

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = "_answers"  # the table of answers in the engine


@dataclass(frozen=True)
class LivePairs:
    """The answers of a rollout that both versions scored.

    `unpaired` counts those that one of them did not; labels are known up to `through`, each since
    `known_at`. `slices` are the newest values of the columns that are looked at apart. `no_labels`
    says why there can be none.
    """

    pairs: Pairs
    unpaired: int
    through: datetime
    known_at: "NDArray[np.datetime64]"
    buckets: "NDArray[np.int64]"
    slices: Mapping[str, "NDArray[np.object_]"]
    no_labels: str | None

    def until(self, time: datetime, entered: Sequence[tuple[datetime, float]]) -> "LivePairs":
        """Return what there would have been at a time, had the stages been entered then."""
        kept = self.pairs.at_us < to_us(time)
        pairs, known_at = self.pairs.take(kept), self.known_at[kept]
        is_complete = pairs.is_complete & (known_at <= np.datetime64(time.replace(tzinfo=None)))
        buckets = self.buckets[kept]
        share, is_canary = _assigned(pairs.at_us, buckets, entered)
        pairs = replace(pairs, is_complete=is_complete, share=share, is_canary=is_canary)
        through = min(time, self.through)
        return replace(
            self, pairs=pairs, through=through, known_at=known_at, buckets=buckets, slices={}
        )


def read_pairs(
    context: Context,
    rollout: Rollout,
    versions: tuple[int, int],
    trained_through: datetime,
    *,
    until: datetime,
) -> LivePairs:
    """Read what `versions`, the champion then and the new one, said until a time.

    Answers about test entities are left out. Labels are those known at `until`, and after
    `trained_through`: earlier ones may have been learned from.
    """
    use_case, since = context.use_case, to_us(rollout.opened_at)
    with PredictionLog(context.settings.predictions_url) as log:
        rows = answers_between(log, use_case.name, (since, to_us(until)), but=CALLER)
    buckets, is_test = _buckets(rollout, rows)
    entity = rows.column("entity").to_numpy(zero_copy_only=False)
    at_us = _array(rows, "at_us")
    share, is_canary = _assigned(at_us, buckets, _entered(context, rollout))
    old, is_old = _said_by(versions[0], rows, np.ones(len(at_us), bool))
    new, is_new = _said_by(versions[1], rows, is_canary)
    paired = is_old & is_new & ~is_test
    accepted = accepted_sources(context.ops, use_case)
    marks = {name: item.watermark for name, item in accepted.items()}
    through = min([until, *decisive_marks(use_case, marks)])
    context.engine.register_arrow(ROWS, _table(entity[paired], at_us[paired]))
    query, no_labels = _label_query(context, accepted, through)
    known = context.engine.arrow(f"SELECT _label, _known_at FROM ({query}) ORDER BY _no")
    known_at = known.column("_known_at").to_numpy()
    is_complete = known_at > np.datetime64(trained_through.replace(tzinfo=None))
    is_complete &= known_at <= np.datetime64(through.replace(tzinfo=None))
    slices = _slices(context)
    pairs = Pairs(
        entity=entity[paired],
        at_us=at_us[paired],
        share=share[paired],
        is_canary=is_canary[paired],
        champion=old.take(paired),
        challenger=new.take(paired),
        label=known.column("_label").fill_null(0).to_numpy().astype(np.int8),
        is_complete=is_complete,
        protected={name: slices[name] for name in use_case.protected if name in slices},
    )
    unpaired = int((~paired & ~is_test).sum())
    return LivePairs(pairs, unpaired, through, known_at, buckets[paired], slices, no_labels)


def _assigned(
    at_us: "NDArray[np.int64]",
    buckets: "NDArray[np.int64]",
    entered: Sequence[tuple[datetime, float]],
) -> "tuple[Floats, NDArray[np.bool_]]":
    """Return of each answer the share then, and whether the new version was to decide."""
    place = np.searchsorted([to_us(time) for time, _ in entered], at_us, side="right")
    share = np.array([0.0, *(share for _, share in entered)])[place]
    return share, buckets < np.round(share * BUCKETS)


def _buckets(rollout: Rollout, rows: Any) -> "tuple[NDArray[np.int64], NDArray[np.bool_]]":
    """Return the bucket of each answer's entity, and which are test entities, always in.

    Who is not known by an id is never in.
    """
    encoded = rows.column("entity").combine_chunks().dictionary_encode()
    entities, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    test_entities = policy_of(rollout).test_entities
    buckets = np.array(
        [bucket(rollout.fingerprint, one) if one else BUCKETS for one in entities], np.int64
    )
    return buckets[codes], np.array([one in test_entities for one in entities], bool)[codes]


def _entered(context: Context, rollout: Rollout) -> list[tuple[datetime, float]]:
    """Return when a rollout entered its stages, and their shares."""
    stages = policy_of(rollout).stages
    return [
        (event.at, stages[event.stage].share)
        for event in rollout_events(context.ops, rollout.use_case, rollout.version)
        if event.stage is not None
    ]


def _said_by(
    version: int, rows: Any, asked: "NDArray[np.bool_]"
) -> "tuple[Scored, NDArray[np.bool_]]":
    """Return what a version said of each answer, and where it was asked.

    An answer is the default when no version that was `asked` may decide: the champion always was.
    """
    shadow = _array(rows, "other_version", -1) == version
    answering = _array(rows, "model_version", -1)
    own = (answering == version) & ~shadow
    default = (answering == -1) & asked & ~shadow
    beside = np.where(shadow, _array(rows, "other_probability", np.nan), np.nan)
    timed = own | default
    said = Scored(
        probability=np.where(own, _array(rows, "probability", np.nan), beside),
        decision=np.where(
            shadow, _array(rows, "other_decision", False), _array(rows, "decision", False)
        ),
        is_default=default | (shadow & _array(rows, "other_is_default", False)),
        is_error=shadow & rows.column("other_failure").is_valid().to_numpy(),
        latency_us=np.where(
            timed, _array(rows, "latency_us", -1), _array(rows, "other_latency_us", -1)
        ),
    )
    return said, own | shadow | default


def _array(rows: Any, name: str, missing: Any = None) -> Any:
    column = rows.column(name)
    return (column if missing is None else column.fill_null(missing)).to_numpy()


def _table(entity: "NDArray[Any]", at_us: "NDArray[np.int64]") -> Any:
    import pyarrow as pa

    return pa.table({
        "_no": np.arange(len(at_us)),
        "_entity": pa.array(entity, pa.string()),
        "_at": pa.array(at_us, pa.timestamp("us")),
    })  # fmt: skip


def _label_query(context: Context, accepted: Accepted, through: datetime) -> tuple[str, str | None]:
    """Return SQL of _no, _label and _known_at of each answer, or why there are no labels."""
    use_case, engine, label = context.use_case, context.engine, context.use_case.label
    none = f"SELECT _no, NULL::TINYINT AS _label, NULL::TIMESTAMP AS _known_at FROM {ROWS}"
    tables, key = register_accepted(context, accepted), quoted(use_case.entity.key)
    if label.kind != "column":
        events = engine.compile(label_events(use_case, tables, through))
        engine.create_table("_label_events", events)
        same = f"l.{key}::VARCHAR = _entity AND {in_horizon(use_case, '_at')}"
        return f"SELECT _no, {event_label(use_case, '_at', same)} FROM {ROWS}", None
    if use_case.grid.every == "event":
        return none, "an answer about an entity does not say which of its events the label is of"
    revised = with_revisions(accepted)
    labels = engine.compile(column_labels(use_case, tables, through, revised=revised))
    return (
        f"SELECT _no, label AS _label, known_at AS _known_at FROM {ROWS} "
        f"LEFT JOIN ({labels}) AS l ON l.{key}::VARCHAR = _entity"
    ), None


def _slices(context: Context) -> dict[str, "NDArray[np.object_]"]:
    """Return the newest values of each answer's entity, None where not known.

    Of protected attributes, and of the columns that evaluations look at apart.
    """
    use_case = context.use_case
    names = dict.fromkeys((*use_case.protected, *use_case.evaluation.slices))
    state = context.lake.state(features_uri(context))
    if state is None or not names:
        return {}
    newest = ", ".join(f"arg_max({quoted(name)}, as_of) AS {quoted(name)}" for name in names)
    key = quoted(use_case.entity.key)
    people = f"SELECT {key}::VARCHAR AS _entity, {newest} FROM {context.engine.scan(state)}"
    found = context.engine.arrow(
        f"SELECT {quoted(*names)} FROM {ROWS} LEFT JOIN ({people} GROUP BY ALL) USING (_entity) "
        "ORDER BY _no"
    )
    return {name: np.array(found.column(name).to_pylist(), dtype=object) for name in names}
