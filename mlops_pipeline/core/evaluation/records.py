"""Exceptions from gate rules: a person lets a failed rule pass for a time, with a reason.

Belongs here: what is recorded, and whether one may be granted. Granting and revoking is
lifecycle/exceptions.py's; what an exception changes is gates.py's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.errors import ConfigError, StateError
from mlops_pipeline.spec.rules import GateRule, ParityRule


@dataclass(frozen=True)
class ExceptionEntry:
    """An exception that was granted, or, where `revokes` names one, its revocation."""

    id: int
    use_case: str
    rule: str
    attribute: str | None
    by: str
    reason: str
    at: datetime
    expires_at: datetime | None
    revokes: int | None


@dataclass(frozen=True)
class GateException:
    """One exception, and its end if somebody revoked it; `by` is self-asserted.

    `rule` is a `rule_key`; `attribute` the protected attribute that it is for, None for all.
    """

    id: int
    use_case: str
    rule: str
    attribute: str | None
    by: str
    reason: str
    granted_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    revocation: str | None = None

    def is_in_force(self, now: datetime) -> bool:
        """Whether it counts at `now`: neither revoked nor expired."""
        return self.granted_at <= now < self.expires_at and (
            self.revoked_at is None or now < self.revoked_at
        )

    @property
    def subject(self) -> str:
        """The rule, and the attribute if it is for one."""
        return self.rule + (f" ({self.attribute})" if self.attribute else "")

    @property
    def sentence(self) -> str:
        """Who lets what pass, until when and why."""
        what = f" for {self.attribute}" if self.attribute else ""
        until = self.expires_at.date().isoformat()
        return f"excepted{what} by {self.by} until {until}: {self.reason}"


def exceptions_of(entries: Iterable[ExceptionEntry]) -> list[GateException]:
    """Return the exceptions that were granted, in that order, also those that ended."""
    rows = list(entries)
    ends = {row.revokes: row for row in rows if row.revokes is not None}
    found = []
    for row in rows:
        if row.revokes is not None or row.expires_at is None:
            continue
        given = (row.id, row.use_case, row.rule, row.attribute, row.by, row.reason, row.at)
        end = ends.get(row.id)
        revoked = (end.at, end.by, end.reason) if end else (None, None, None)
        found.append(GateException(*given, row.expires_at, *revoked))
    return found


def rule_key(rule: GateRule) -> str:
    """Return what an exception calls a rule: `demographic_parity`, `metric:roc_auc`."""
    metric = getattr(rule, "metric", None)
    return str(rule.rule) if metric is None else f"{rule.rule}:{metric}"


def check_exception(
    use_case: UseCase, rule: str, attribute: str | None, expires_at: datetime, *, now: datetime
) -> None:
    """Refuse an exception that could never count."""
    blocking = {rule_key(item): item for item in use_case.gates if item.effect == "block"}
    found = blocking.get(rule)
    if found is None:
        raise ConfigError(
            "there is no such rule to except from",
            where=f"gates of {use_case.name}",
            expected=f"a rule that blocks: {', '.join(blocking) or 'there is none'}",
            found=rule,
        )
    protected = (
        (found.attributes or tuple(use_case.protected)) if isinstance(found, ParityRule) else ()
    )
    if attribute is not None and attribute not in protected:
        raise ConfigError(
            "the rule does not judge this attribute",
            where=f"{use_case.name}: {rule}",
            expected=", ".join(protected) or "no attribute",
            found=attribute,
        )
    if expires_at <= now:
        raise StateError(
            "an exception needs an end that is still to come",
            expected=f"after {now.isoformat()}",
            found=expires_at.isoformat(),
            way_out="give a later --expires",
        )
