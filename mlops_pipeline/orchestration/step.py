"""What every asset does around its work: lease, timing, audit, the alert on failure."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import MlopsError, NotFoundError
from mlops_pipeline.orchestration.failures import without_values
from mlops_pipeline.orchestration.jobs import LIFECYCLE
from mlops_pipeline.orchestration.resources import MlflowRun
from mlops_pipeline.stores.settings import Settings

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.context import AcceptedSource, Context
    from mlops_pipeline.stores.ops import OpsDatabase, Pointer

LEASE_SECONDS = 30.0  # without a heartbeat for this long, a lease expires
HEARTBEAT_SECONDS = 5.0
LINGER_SECONDS = 30.0  # between two steps of one run: the next process has to start
BESIDE_SECONDS = 3_600.0  # what looks at the live model waits so long: for a lifecycle to end
DOCS = "docs/runbook.md"
TRIGGERED_BY = "mlops/by"  # the tag of a run that says who started it


@dataclass(frozen=True)
class Step:
    """An asset of a use case at work."""

    use_case: UseCase
    settings: Settings
    ops: "OpsDatabase"
    run_id: str
    now: datetime
    work: "Context"
    hold: Any

    def pointer(self, name: str, made_by: str) -> "Pointer":
        """Return a pointer of the ops database.

        Raises
        ------
        NotFoundError
            When the asset that sets it has never run.
        """
        found = self.ops.get_pointer(self.use_case.name, name)
        if found is None:
            raise NotFoundError(
                f"{self.use_case.name} has no {name} yet",
                way_out=f"materialize {self.use_case.name}/{made_by} first",
            )
        return found

    def accepted(self) -> "dict[str, AcceptedSource]":
        """Return the accepted version of every source."""
        from mlops_pipeline.lifecycle.ingest.accepted import accepted_sources

        return accepted_sources(self.ops, self.use_case)

    def start_lifecycle(self, as_of: datetime, tags: Mapping[str, str]) -> None:
        """Note that a lifecycle began, and who triggered it."""
        self.ops.start_lifecycle(
            self.use_case.name,
            self.run_id,
            as_of=as_of,
            trigger=tags.get("mlops/trigger", "manual"),
            triggered_by=tags.get(TRIGGERED_BY),
            now=self.now,
        )

    def record_reads(self, asset: str) -> None:
        """Note in the audit chain which versions of tables and source files were read."""
        places = (self.settings.lake_uri, str(self.settings.data_dir))
        reads = {
            _within(address, places): sorted(versions)
            for address, versions in self.work.engine.reads.items()
        }
        if reads:
            self.ops.append_audit(
                "data_access",
                {"asset": asset, "run_id": self.run_id, "reads": reads},
                use_case=self.use_case.name,
                actor=f"run {self.run_id}",
                now=self.now,
            )

    def set_pointer(self, name: str, value: dict[str, Any]) -> None:
        """Move a pointer, unless the lease was lost meanwhile."""
        self.hold.check()
        self.ops.set_pointer(self.use_case.name, name, value, run_id=self.run_id, now=self.now)


@contextmanager
def asset_step(
    context: dg.AssetExecutionContext, use_case: UseCase, *, wait_s: float = 0.0
) -> Iterator[Step]:
    """Hold the use case's lease while an asset works; record its seconds, alert on failure.

    Between two assets of a run the lease lingers; after the run's last one it is given back. What
    was read is an audit event; when the run ends, the audit chain is anchored.

    Parameters
    ----------
    wait_s : float
        How long another run at work is waited for before this one fails.
    """
    from mlops_pipeline.lifecycle.compliance.anchors import anchor_chain
    from mlops_pipeline.lifecycle.context import open_context
    from mlops_pipeline.lifecycle.deployments import check_approval
    from mlops_pipeline.stores.models.tracking import quiet
    from mlops_pipeline.stores.ops import HeldLease, OpsDatabase

    quiet()
    settings = context.resources.platform.settings()
    asset = context.op_def.name.removeprefix(f"{use_case.name}__")
    begun = time.perf_counter()
    with OpsDatabase.open(settings.database_url) as ops:
        try:
            hold = HeldLease(
                ops,
                f"lifecycle:{use_case.name}",
                context.run_id,
                clock=lambda: datetime.now(UTC),
                ttl_s=LEASE_SECONDS,
                heartbeat_s=HEARTBEAT_SECONDS,
                linger_s=LINGER_SECONDS if _has_next(context, use_case, asset) else 0.0,
                wait_s=wait_s,
            )
            with without_values(), hold, open_context(use_case, settings) as work:
                now, by = settings.now(), f"run {context.run_id}"
                ops.record_configuration(
                    use_case.name, use_case.model_dump(mode="json"), by=by, now=now
                )
                check_approval(ops, use_case, now=now)
                step = Step(use_case, settings, ops, context.run_id, now, work, hold)
                try:
                    yield step
                finally:
                    step.record_reads(asset)
        except Exception as error:
            _alert(context, ops, use_case, asset, error, now=settings.now())
            _end_mlflow(context, use_case, "FAILED")
            anchor_chain(
                ops, settings, use_case, reason=f"run {context.run_id}", now=settings.now()
            )
            raise
        else:
            _end_mlflow(context, use_case, "FINISHED")
            if not hold.lingers:  # the run's last asset
                anchor_chain(
                    ops, settings, use_case, reason=f"run {context.run_id}", now=settings.now()
                )
        finally:
            ops.record_step_seconds(
                use_case.name, context.run_id, asset, time.perf_counter() - begun
            )


def mlflow_run(context: dg.AssetExecutionContext, use_case: UseCase) -> str:
    """Start or resume this Dagster run's MLflow run; return its id."""
    tracked: MlflowRun = getattr(context.resources, f"mlflow_{use_case.name}")
    return tracked.start()


def _within(address: str, places: tuple[str, ...]) -> str:
    """Return an address without the folder that it lies in: the record names no machine."""
    for place in places:
        if address.removeprefix("file://").startswith(f"{place}/"):
            return address.removeprefix("file://").removeprefix(f"{place}/")
    return address


def _end_mlflow(context: dg.AssetExecutionContext, use_case: UseCase, status: str) -> None:
    tracked: MlflowRun | None = getattr(context.resources, f"mlflow_{use_case.name}", None)
    if tracked is not None:
        tracked.end(status)


def _alert(
    context: dg.AssetExecutionContext,
    ops: "OpsDatabase",
    use_case: UseCase,
    asset: str,
    error: Exception,
    *,
    now: datetime,
) -> None:
    way_out = error.way_out if isinstance(error, MlopsError) else None
    action = way_out or f"open the run {context.run_id} in the Dagster UI; see {DOCS}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    ops.raise_alert(
        use_case.name,
        "run_failed",
        "error",
        f"{asset}: {error}",
        action,
        now=now,
        run_id=context.run_id,
        dedupe_key=f"run_failed:{context.run_id}",
    )
    context.log.error(f"{use_case.name}/{asset} failed: {reason}. What to do: {action}")


def is_whole_lifecycle(context: dg.AssetExecutionContext, use_case: UseCase) -> bool:
    """Whether this run goes on to deployment (and not a click on one asset)."""
    return dg.AssetKey([use_case.name, "deployment"]) in _keys_of_run(context)


def _has_next(context: dg.AssetExecutionContext, use_case: UseCase, asset: str) -> bool:
    """Whether this run goes on with a later asset of the chain."""
    later = LIFECYCLE[LIFECYCLE.index(asset) + 1 :] if asset in LIFECYCLE else ()
    keys = _keys_of_run(context)
    return any(dg.AssetKey([use_case.name, name]) in keys for name in later)


def _keys_of_run(context: dg.AssetExecutionContext) -> frozenset[dg.AssetKey]:
    selection = context.run.asset_selection
    every = context.job_def.asset_layer.executable_asset_keys
    return frozenset(every if selection is None else selection)
