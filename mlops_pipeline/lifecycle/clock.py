"""Moving the Clock: in steps, or many times as fast; each move is an audit event."""

from collections.abc import Iterable
from datetime import datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.rollout.approvals import person_name
from mlops_pipeline.errors import ConfigError, StateError
from mlops_pipeline.stores.clock import MovingClock, machine_now, read_clock, write_clock
from mlops_pipeline.stores.ops import Ledger, OpsDatabase, is_at_work
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline.stores.settings import Settings

LEDGER = "clock"  # the scope of who moves it


def move_clock(
    ops: Ledger,
    settings: Settings,
    to: datetime | None,
    *,
    by: str,
    rate: float = 0.0,
    until: datetime | None = None,
) -> datetime:
    """Set the Clock to a time, a later one unless it was the system's; return its time."""
    _check_movable(settings)
    with ops.write(LEDGER) as tx:
        before, machine = read_clock(settings.data_dir), machine_now()
        now = before.at(machine) if before else machine
        target = to or now
        if before is not None and target < now:
            raise StateError(
                "the Clock does not go back: what was decided would lie in the future",
                expected=f"{now.isoformat()} or later",
                found=target.isoformat(),
                way_out="mlops clock system ends it; replay an earlier time in a data folder of "
                "its own",
            )
        clock = MovingClock(target, machine, rate, until)
        detail = {"from": now.isoformat(), "to": target.isoformat(), "rate": rate,
                  "until": until and until.isoformat()}  # fmt: skip
        tx.append_audit("clock", detail, use_case=None, actor=person_name(by), now=target)
        write_clock(settings.data_dir, clock)
    return target


def end_clock(ops: Ledger, settings: Settings, *, by: str) -> None:
    """Go by the system's time again."""
    _check_movable(settings)
    with ops.write(LEDGER) as tx:
        now = settings.now()
        detail = {"from": now.isoformat(), "to": "system"}
        tx.append_audit("clock", detail, use_case=None, actor=person_name(by), now=now)
        write_clock(settings.data_dir, None)


def check_idle(ops: OpsDatabase, use_cases: Iterable[UseCase]) -> None:
    """Refuse to move on while a run works: it would see two times."""
    for use_case in use_cases:
        lease = get_lease(ops, f"lifecycle:{use_case.name}")
        if lease is not None and is_at_work(lease, machine_now()):
            raise StateError(
                "a run is at work, and would see two times",
                where=use_case.name,
                found=lease.holder,
                way_out="step the Clock when it has ended",
            )


def _check_movable(settings: Settings) -> None:
    if settings.fixed_now is not None:
        raise ConfigError(
            "MLOPS_NOW fixes the Clock of this process, so nothing moves it",
            where="MLOPS_NOW",
            found=settings.fixed_now.isoformat(),
            way_out="unset MLOPS_NOW",
        )
