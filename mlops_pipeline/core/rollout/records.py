"""What is recorded of rollouts, and what each state means to the rest of the house.

A new state is its name and its line here, and its lines in the machine's table. Columns and
constraints of the ledger follow from these classes (stores/ops/tables.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

RolloutState = Literal[
    "awaiting_approval", "running", "held", "paused", "champion", "previous", "rejected",
    "superseded", "archived", "rolled_back",
]  # fmt: skip
OpeningState = Literal["awaiting_approval", "running", "champion"]
ApprovalState = Literal["candidate", "staging", "production", "archived"]
Stage = Literal["staging", "production"]
Verdict = Literal["approved", "rejected"]


IN_TRIAL: tuple[RolloutState, ...] = ("running", "held", "paused", "awaiting_approval")
"""States of a version that is in a stage before full."""


class Meaning(NamedTuple):
    """What a state is elsewhere: MLflow's alias, approval state, and a sentence for people."""

    alias: str | None
    approval: ApprovalState
    text: str


MEANINGS: Mapping[RolloutState, Meaning] = {
    "awaiting_approval": Meaning(
        "challenger", "candidate", "waiting for a person's approval; not in use"
    ),
    "running": Meaning("challenger", "staging", "in trial: it serves a configured share"),
    "held": Meaning("challenger", "staging", "in trial; held until there is enough evidence"),
    "paused": Meaning("challenger", "staging", "in trial; paused by a person"),
    "champion": Meaning("champion", "production", "in use (the champion)"),
    "previous": Meaning("previous", "production", "replaced; kept to go back to"),
    "rejected": Meaning(None, "archived", "rejected by a person; not in use"),
    "superseded": Meaning(
        None, "archived", "superseded by a newer version before anybody decided; not in use"
    ),
    "archived": Meaning(None, "archived", "archived; not in use"),
    "rolled_back": Meaning(None, "archived", "rolled back; not in use"),
}


@dataclass(frozen=True)
class Rollout:
    """One model version on its way to, in, or past production.

    `stages` are those it has to pass; `stage` is the index of the one it entered last, None before
    the first, and `entered_at` when. `policy` is the configuration's section `rollout` when it
    opened: what changes there later counts for later versions.
    """

    id: int
    use_case: str
    version: int
    state: RolloutState
    stage: int | None
    stages: tuple[str, ...]
    mlflow_run_id: str
    dagster_run_id: str
    fingerprint: str
    reason: str
    waiting_for: str | None
    opened_at: datetime
    changed_at: datetime
    entered_at: datetime | None
    policy: Mapping[str, Any] | None

    @property
    def is_in_trial(self) -> bool:
        """Whether it is tried beside the champion: in shadow, or for a share of entities."""
        is_before_full = self.stage is not None and self.stage < len(self.stages) - 1
        return is_before_full and self.state in IN_TRIAL

    @property
    def stage_name(self) -> str | None:
        """The stage that it entered last."""
        return None if self.stage is None else self.stages[self.stage]


@dataclass(frozen=True)
class RolloutEvent:
    """One change of state or stage, and its evidence; `from_state` is None for the opening."""

    id: int
    rollout_id: int
    use_case: str
    version: int
    at: datetime
    from_state: RolloutState | None
    to_state: RolloutState
    stage: int | None
    actor: str
    reason: str
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True)
class Approval:
    """What a person said about a version; `by` is self-asserted."""

    id: int
    rollout_id: int
    use_case: str
    version: int
    stage: Stage
    verdict: Verdict
    by: str
    reason: str
    at: datetime
    expires_at: datetime | None
