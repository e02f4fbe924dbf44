"""The features step of a run: build what is new, look for leaks, accept.

How features are computed belongs to offline.py, the comparison that finds leaks to leak_check.py.
"""

from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.errors import DataError
from mlops_pipeline.lifecycle.bookkeeping import get_pointer, start_lifecycle
from mlops_pipeline.lifecycle.context import RunContext, Snapshot
from mlops_pipeline.lifecycle.features.catalogue import model_inputs, refuse_deleted_features
from mlops_pipeline.lifecycle.features.leak_check import LeakCheck, leak_check
from mlops_pipeline.lifecycle.features.offline import BuiltFeatures, build_features
from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources, take_snapshot


@dataclass(frozen=True)
class CheckedFeatures:
    """Built features with their leak check, and whether the period had passed one before.

    What the accepted rows no longer give is a warning for a period that did pass (a rule may have
    changed since), and an error for one that never did: its values may be those of a leak.
    """

    built: BuiltFeatures
    as_of: datetime
    leaks: LeakCheck
    has_passed_before: bool

    @property
    def is_blocked(self) -> bool:
        """Whether nothing downstream may read the features."""
        return bool(self.leaks.leaking or (self.leaks.outdated and not self.has_passed_before))

    @property
    def reason(self) -> str:
        """One sentence with what was found."""
        found = self.leaks
        if found.leaking:
            return f"look ahead of period {found.period}: {', '.join(found.leaking)}"
        if found.outdated:
            return (
                f"stored values of period {found.period} are not what the accepted rows give: "
                f"{', '.join(found.outdated)}"
            )
        return f"{found.rows_compared:,} rows of period {found.period} are the same"


def snapshot_for(run: RunContext, as_of: datetime | None) -> Snapshot:
    """Return what a run sees; refused when a live model needs a feature that was deleted."""
    refuse_deleted_features(run.use_case, model_inputs(run.ops, run.lake, run.use_case))
    accepted = accepted_sources(run.ops, run.use_case)
    return take_snapshot(run.use_case, accepted, as_of, now=run.now)


def begin_lifecycle(run: RunContext, snapshot: Snapshot, trigger: str, by: str | None) -> None:
    """Note that a whole lifecycle began, and who triggered it."""
    start_lifecycle(
        run.ops,
        run.use_case.name,
        run.run_id,
        as_of=snapshot.as_of,
        trigger=trigger,
        triggered_by=by,
        now=run.now,
    )


def build_checked(run: RunContext, snapshot: Snapshot) -> CheckedFeatures:
    """Build the periods that are new, and check the newest that was built or found finished."""
    before = get_pointer(run.ops, run.use_case.name, "features")
    built = build_features(
        run,
        snapshot,
        progress=lambda name, rows: run.log.info(f"period {name}: {rows:,} rows"),
    )
    has_passed = (
        before is not None
        and before.value["definitions"] == built.definitions
        and datetime.fromisoformat(before.value["as_of"]) >= snapshot.as_of
    )
    found = leak_check(run, snapshot.accepted, period=built.periods[-1].period)
    return CheckedFeatures(built, snapshot.as_of, found, has_passed)


def accept_features(run: RunContext, checked: CheckedFeatures) -> None:
    """Move the pointer to the features."""
    built = checked.built
    if checked.is_blocked:
        raise DataError(
            "the features were refused; downstream keeps those of the last accepted run",
            where=built.uri,
            expected="the same values with noise for a future",
            found=checked.reason,
            way_out="mend the definitions (other ones are another table); where the code was "
            "mended, remove the folder of the table: it is built again",
        )
    run.set_pointer(
        "features",
        {
            "as_of": checked.as_of.isoformat(),
            "version": built.version,
            "definitions": built.definitions,
            "content_hash": built.content_hash,
        },
    )
    run.record_use(run.use_case.features, "computation")
