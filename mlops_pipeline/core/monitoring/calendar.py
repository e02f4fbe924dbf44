"""When planned work of a use case is due: cron lines, and the same as times on any clock."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlops_pipeline.config.use_case import UseCase

ARCHIVE_HOUR_UTC = 1
INGEST_HOUR_UTC = 2  # before what reads the new rows
HOUR_UTC = 3  # after nightly loads
AUDIT_HOUR_UTC = 5  # after a retraining of the same day
REVIEW_HOUR_UTC = 6  # before people come to work on a Monday
MINUTE = 30  # of every hour: not when the monthly run starts
ROLLOUT_MINUTE = 45  # of every hour: when the online store is up to date
MONDAY = 1  # in cron; Sunday is 0


@dataclass(frozen=True)
class Plan:
    """Work due at a minute (UTC) of every hour, or of one hour of a day; None: every one."""

    name: str
    minute: int = 0
    hour: int | None = None
    day: int | None = None
    weekday: int | None = None

    @property
    def cron(self) -> str:
        """The cron line."""
        fields = (self.minute, self.hour, self.day, None, self.weekday)
        return " ".join("*" if field is None else str(field) for field in fields)

    def after(self, time: datetime) -> datetime:
        """Return when it is due next, after a time."""
        start = time.replace(minute=self.minute, second=0, microsecond=0)
        if self.hour is None:
            return start if start > time else start + timedelta(hours=1)
        due = start.replace(hour=self.hour)
        while due <= time or not self._is_on(due):
            due += timedelta(days=1)
        return due

    def last(self, after: datetime, until: datetime) -> datetime | None:
        """Return the newest time at which it was due in (after, until]; None if it was not."""
        back = timedelta(days=32) if self.hour is not None else timedelta(hours=2)
        due, found = self.after(max(after, until - back)), None
        while due <= until:
            due, found = self.after(due), due
        return found

    def _is_on(self, due: datetime) -> bool:
        return self.day in (None, due.day) and self.weekday in (None, due.isoweekday() % 7)


def plans(use_case: UseCase) -> dict[str, Plan]:
    """Return the planned work of a use case by its kind."""
    day = use_case.retraining.monthly_day
    kinds = {
        "monthly_retrain": Plan("", hour=HOUR_UTC, day=day),
        "online_features": Plan("", minute=MINUTE),
        "archive": Plan("", hour=ARCHIVE_HOUR_UTC),
        "ingest": Plan("", hour=INGEST_HOUR_UTC),
        "rollout": Plan("", minute=ROLLOUT_MINUTE),
        "fairness_audit": Plan("", hour=AUDIT_HOUR_UTC, day=use_case.fairness.audit_day),
        "model_card_review": Plan("", hour=REVIEW_HOUR_UTC, weekday=MONDAY),
    }
    if not use_case.protected:  # there is nothing to audit
        del kinds["fairness_audit"]
    return {kind: replace(plan, name=f"{use_case.name}_{kind}") for kind, plan in kinds.items()}


def next_stop(planned: Iterable[Plan], after: datetime) -> datetime | None:
    """Return when work of a day or longer is due next: hourly work is done once at each stop."""
    times = (plan.after(after) for plan in planned if plan.hour is not None)
    return min(times, default=None)
