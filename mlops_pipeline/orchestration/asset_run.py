"""What every asset is and does around its work: its description, lease, timing, audit, alert.

Belongs here: what Dagster is told of an asset, and what happens before and after its body. What the
body does is one call of lifecycle/.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import MachineError, MlopsError, masked
from mlops_pipeline.orchestration.jobs import LIFECYCLE
from mlops_pipeline.orchestration.resources import MlflowRun

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.bookkeeping import Outcome
    from mlops_pipeline.lifecycle.context import RunContext
    from mlops_pipeline.stores.ops import OpsDatabase

LEASE_SECONDS = 30.0  # without a heartbeat for this long, a lease expires
HEARTBEAT_SECONDS = 5.0
LINGER_SECONDS = 30.0  # between two steps of one run: the next process has to start
BESIDE_SECONDS = 3_600.0  # what looks at the live model waits so long: for a lifecycle to end
DOCS, RUNBOOK = "docs/assets.md", "docs/runbook.md"
TRIGGER, TRIGGERED_BY = "mlops/trigger", "mlops/by"  # tags of a run: what started it, and who
# what these say is about code, files and Dagster, never about a row
HARMLESS = (MlopsError, AttributeError, ImportError, NameError, NotImplementedError)

AssetFunction = Callable[..., Any]


def use_case_asset(
    use_case: UseCase,
    name: str,
    *,
    group: str,
    kinds: set[str],
    after: tuple[str, ...],
    description: str,
    mlflow: bool = False,
    **options: Any,
) -> Callable[[AssetFunction], dg.AssetsDefinition]:
    """Return the decorator of one asset, so that the UI reads like documentation."""
    owner = use_case.owner
    team = "".join(letter if letter.isalnum() else "-" for letter in owner.lower()).strip("-")
    decorator: Callable[[AssetFunction], dg.AssetsDefinition] = dg.asset(
        name=name,
        key_prefix=[use_case.name],
        group_name=f"{use_case.name}_{group}",
        kinds=kinds,
        owners=[owner if "@" in owner else f"team:{team}"],
        tags={"use_case": use_case.name, "stage": group},
        description=f"{description}\n\n*{use_case.description.strip()}*",
        metadata={"docs": dg.MetadataValue.path(f"{DOCS}#{name}")},
        deps=[dg.AssetKey([use_case.name, item]) for item in after],
        required_resource_keys={"platform", *([f"mlflow_{use_case.name}"] if mlflow else [])},
        **options,
    )
    return decorator


@contextmanager
def asset_run(
    context: dg.AssetExecutionContext, use_case: UseCase, *, wait_s: float = 0.0
) -> "Iterator[RunContext]":
    """Hold the use case's lease while an asset works; record its seconds, alert on failure.

    Who started the run is on record before its first asset does anything. Between two assets of a
    run the lease lingers; after the run's last one it is given back. What was read is an audit
    event; when the run ends, MLflow and the anchors follow the ledger. Another run at work is
    waited for up to `wait_s` seconds.
    """
    from mlops_pipeline.lifecycle import bookkeeping
    from mlops_pipeline.lifecycle.context import RunContext, open_context
    from mlops_pipeline.lifecycle.project import check_approval, project
    from mlops_pipeline.stores.models.mlflow import quiet
    from mlops_pipeline.stores.ops import HeldLease
    from mlops_pipeline.stores.settings import keep_private

    quiet()
    keep_private()
    settings = context.resources.platform.settings()
    asset = context.op_def.name.removeprefix(f"{use_case.name}__")
    begun: float = time.perf_counter()
    outcome: Outcome | None = None  # of the run, when it ends here
    with without_values(), open_context(use_case, settings) as opened:
        ops, by = opened.ops, f"run {context.run_id}"
        _note_beginning(context, ops, use_case, now=settings.now())
        lease = HeldLease(
            ops,
            f"lifecycle:{use_case.name}",
            context.run_id,
            clock=lambda: datetime.now(UTC),
            ttl_s=LEASE_SECONDS,
            heartbeat_s=HEARTBEAT_SECONDS,
            linger_s=LINGER_SECONDS if _has_next(context, use_case, asset) else 0.0,
            wait_s=wait_s,
        )
        try:
            with without_values(), lease:
                run = RunContext(
                    **{**vars(opened), "now": settings.now()},
                    run_id=context.run_id,
                    lease=lease,
                    log=context.log,
                )
                document = use_case.model_dump(mode="json")
                bookkeeping.record_configuration(ops, use_case.name, document, by=by, now=run.now)
                check_approval(ops, use_case, now=run.now)
                try:
                    yield run
                finally:
                    run.record_reads(asset)
            outcome = None if lease.linger_s else "finished"
        except Exception as error:
            outcome = "failed"
            _alert(context, ops, use_case, asset, error, now=settings.now())
            raise
        except BaseException:
            outcome = "interrupted"
            raise
        finally:
            seconds = time.perf_counter() - begun
            bookkeeping.record_step_seconds(ops, use_case.name, context.run_id, asset, seconds)
            tracked: MlflowRun | None = getattr(context.resources, f"mlflow_{use_case.name}", None)
            if tracked is not None:
                tracked.leave()
            if outcome is not None:
                bookkeeping.end_run(ops, use_case.name, context.run_id, outcome, now=settings.now())
                project(ops, settings, use_case, reason=by, now=settings.now())


def _note_beginning(
    context: dg.AssetExecutionContext, ops: "OpsDatabase", use_case: UseCase, *, now: datetime
) -> None:
    from mlops_pipeline.lifecycle.bookkeeping import begin_run

    tags = context.run.tags
    begin_run(
        ops,
        use_case.name,
        context.run_id,
        is_lifecycle=is_whole_lifecycle(context, use_case),
        trigger=tags.get(TRIGGER, "manual"),
        by=tags.get(TRIGGERED_BY),
        now=now,
    )


def mlflow_run(context: dg.AssetExecutionContext, use_case: UseCase) -> str:
    """Start or resume this Dagster run's MLflow run; return its id."""
    tracked: MlflowRun = getattr(context.resources, f"mlflow_{use_case.name}")
    return tracked.start()


@contextmanager
def without_values() -> Iterator[None]:
    """Let errors pass with their traceback, and without their causes and the values they quote.

    DuckDB, Arrow, pandas and NumPy name the value that they cannot convert, and Dagster stores an
    error with all of its causes in its log, where nothing is erased. In the place of an error of a
    library an MlopsError names its type, or what the machine does not do.
    """
    try:
        yield
    except BaseException as error:  # noqa: BLE001 # raised again, whatever it is: a panic too
        shown = MachineError.of(error) or error
        if (
            isinstance(shown, Exception)
            and not isinstance(shown, HARMLESS)
            and not type(error).__module__.startswith("dagster")
        ):
            shown = MlopsError(
                f"an error that was not expected: {type(error).__name__}",
                found=masked(str(error)),
                way_out="the traceback of the run names the place; report it with the run's log",
            )
        raise shown.with_traceback(error.__traceback__) from None


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


def _alert(
    context: dg.AssetExecutionContext,
    ops: "OpsDatabase",
    use_case: UseCase,
    asset: str,
    error: Exception,
    *,
    now: datetime,
) -> None:
    from mlops_pipeline.lifecycle.alerts import NewAlert, raise_alert

    way_out = error.way_out if isinstance(error, MlopsError) else None
    action = way_out or f"open the run {context.run_id} in the Dagster UI; see {RUNBOOK}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    # first: a database that is full or away takes no alert
    context.log.error(f"{use_case.name}/{asset} failed: {reason}. What to do: {action}")
    raise_alert(
        ops,
        use_case.name,
        NewAlert(
            "run_failed",
            "error",
            f"{asset}: {error}",
            action,
            run_id=context.run_id,
            dedupe_key=f"run_failed:{context.run_id}",
        ),
        now=now,
    )
