"""The retraining decision, case by case: the first that applies decides."""

from dataclasses import asdict, replace

import pytest

from mlops_pipeline.config.modelling import Retraining
from mlops_pipeline.core.monitoring.retraining import Evidence, decide

POLICY = Retraining(new_labels=100, max_attempts=3)
ENOUGH = Evidence(
    trigger="new_labels",
    new_labels=101,
    has_new_data=True,
    attempts=0,
    last_as_of="2024-02-01",
    next_as_of="2024-05-01",
)


@pytest.mark.parametrize(
    ("evidence", "retrain", "reason"),
    [
        (ENOUGH, True, "101 new labels, more than 100"),
        (replace(ENOUGH, new_labels=100), False, "100 new labels, not more than 100"),
        (replace(ENOUGH, attempts=2), True, "101 new labels, more than 100"),
        (
            replace(ENOUGH, attempts=3),
            False,
            "3 runs on this evidence did not finish (at most 3); mend the cause and run it by hand",
        ),
        (replace(ENOUGH, next_as_of=None), False, "the sources hold no data yet"),
        (
            replace(ENOUGH, last_as_of=None),
            False,
            "no lifecycle has finished yet; start the first one by hand",
        ),
        (
            replace(ENOUGH, next_as_of="2024-02-01"),
            False,
            "nothing is newer than the last lifecycle's as_of 2024-02-01",
        ),
        (
            replace(ENOUGH, next_as_of="2024-01-01"),
            False,
            "nothing is newer than the last lifecycle's as_of 2024-02-01",
        ),
        (
            replace(ENOUGH, trigger="new_data", new_labels=0),
            True,
            "a source is newer than what was accepted",
        ),
        (
            replace(ENOUGH, trigger="new_data", has_new_data=False),
            False,
            "no source is newer than what was accepted",
        ),
        (
            replace(ENOUGH, trigger="monthly", new_labels=0, has_new_data=False),
            True,
            "monthly retraining: as_of moves on to 2024-05-01",
        ),
        (
            replace(ENOUGH, trigger="monthly", next_as_of="2024-02-01"),
            False,
            "nothing is newer than the last lifecycle's as_of 2024-02-01",
        ),
    ],
)
def test_decide_follows_the_table(evidence: Evidence, retrain: bool, reason: str) -> None:
    decision = decide(evidence, POLICY)
    assert (decision.retrain, decision.reason) == (retrain, reason)
    assert decision.evidence == evidence


def test_evidence_as_a_dictionary_is_plain_json() -> None:
    assert asdict(ENOUGH) == {
        "trigger": "new_labels",
        "new_labels": 101,
        "has_new_data": True,
        "attempts": 0,
        "last_as_of": "2024-02-01",
        "next_as_of": "2024-05-01",
    }
