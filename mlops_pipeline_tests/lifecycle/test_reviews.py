"""Answers that a person looks at: which are flagged, what a verdict leaves, and what is sampled."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.core.data.inputs import condition
from mlops_pipeline.errors import DataError, NotFoundError, ReviewedError
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.features.online.reader import open_reader
from mlops_pipeline.lifecycle.reviews import Said, labelling_sample
from mlops_pipeline.lifecycle.serve import PredictionService
from mlops_pipeline.spec.grammar import Expression
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.predictions import PredictionLog
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import SHOP_DOCUMENT, settings_at
from mlops_pipeline_tests.worlds import NOW

__all__ = ["changed", "shops"]

ROW = {"visits": 2, "spent": 12.5, "last_kind": "web", "spent_a_visit": 6.25}
ANN = Said("overturned", "Ann", "moved house")


class Desk:
    """The shop's service where customers who spent more than 10 are of high impact."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.settings = settings_at(root)
        release(self.settings)
        serving = {"high_impact": "spent > 10 and last_kind = 'web'"}
        case = UseCase.model_validate({**SHOP_DOCUMENT, "serving": serving})
        self.log = stack.enter_context(PredictionLog(self.settings.predictions_url))
        reader = stack.enter_context(open_reader(case, self.settings, is_noted=False))
        made = PredictionService(case, self.settings, reader=reader, log=self.log)
        self.service = stack.enter_context(made)

    def ask(self, entity: int, **values: Any) -> Any:
        rows = [EntityRow(entity, features={**ROW, **values})]
        return self.service.predict(rows, caller="(none)")[0]

    def waiting(self) -> list[str]:
        return [one.id for one in self.service.waiting(10)]

    def events(self) -> list[Any]:
        with OpsDatabase.open(self.settings.database_url) as ops:
            return ops.audit_events(kind="review")


@pytest.fixture
def desk(changed: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(changed, stack)


def test_answer_of_high_impact_waits_for_a_person_whoever_decided(desk: Desk) -> None:
    flagged, plain = desk.ask(1), desk.ask(2, spent=9.0)
    assert (flagged.needs_review, flagged.reasons) == (True, ("high impact",))
    assert (plain.needs_review, plain.reasons) == (False, ())
    assert desk.waiting() == [flagged.id]
    default = desk.service.predict([EntityRow(99)], caller="(none)")[0]
    assert (default.role, default.needs_review) == ("default", False)  # nothing is known of it


def test_verdict_is_in_log_receipt_and_chain_and_ends_the_waiting(desk: Desk) -> None:
    one, other = desk.ask(1), desk.ask(1)
    made = desk.service.review(one.id, ANN)
    assert made.decision is not one.decision
    assert desk.waiting() == [other.id]
    assert desk.service.receipt(other.id)["review"] is None
    assert desk.service.receipt(one.id)["review"] == {
        "verdict": "overturned", "decision": not one.decision, "by": "Ann",
        "reason": "moved house", "reviewed_at": NOW.isoformat()}  # fmt: skip
    (event,) = desk.events()
    assert (event.actor, event.detail["prediction_id"]) == ("Ann", one.id)
    assert event.detail["verdict"] == "overturned"
    assert "moved" not in json.dumps(event.detail)  # it may tell of a person, and is for ever


def test_same_verdict_again_changes_nothing_and_another_is_refused(desk: Desk) -> None:
    one = desk.ask(1)
    made = desk.service.review(one.id, ANN)
    assert desk.service.review(one.id, ANN) == made
    with pytest.raises(ReviewedError, match="overturned by Ann"):
        desk.service.review(one.id, Said("confirmed", "Ben", "it is right"))
    assert len(desk.events()) == 1


def test_verdict_without_a_name_or_of_no_answer_is_refused(desk: Desk) -> None:
    one = desk.ask(1)
    with pytest.raises(DataError):
        desk.service.review(one.id, Said("confirmed", "\u200b", "why"))
    with pytest.raises(NotFoundError, match="confirmed"):
        desk.service.review(one.id, Said("confirm", "Ann", "why"))
    with pytest.raises(NotFoundError):
        desk.service.review("0", ANN)
    assert desk.waiting() == [one.id]
    assert desk.events() == []


def test_forgotten_person_takes_the_reviews_along(desk: Desk) -> None:
    one = desk.ask(1)
    desk.service.review(one.id, ANN)
    assert desk.log.forget("shop", "1") == 1
    with desk.log.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM review").scalar() == 0


def test_sample_has_random_answers_and_the_nearest_to_the_threshold(desk: Desk) -> None:
    made = [desk.ask(number, spent=float(number), last_kind="=1+1") for number in range(20)]
    options: dict[str, Any] = {"at_random": 5, "uncertain": 3, "days": 1, "seed": 1, "now": NOW}
    text = labelling_sample(desk.log, "shop", **options)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text == labelling_sample(desk.log, "shop", **options)
    assert [row["picked"] for row in rows] == ["random"] * 5 + ["uncertain"] * 3
    assert {row["label"] for row in rows} == {""}
    assert {row["last_kind"] for row in rows} == {"'=1+1"}  # no formula
    random = {row["prediction_id"] for row in rows[:5]}
    left = sorted((abs(one.probability - one.threshold), one.id) for one in made
                  if one.id not in random)  # fmt: skip
    assert [row["prediction_id"] for row in rows[5:]] == [one for _, one in left[:3]]


def test_value_of_another_type_satisfies_no_condition() -> None:
    holds = condition(
        Expression.of("amount > 5 or is_new"), {"amount": "float64", "is_new": "boolean"}
    )
    assert holds({"amount": 6, "is_new": False})
    assert holds({"is_new": True})
    assert not holds({"amount": "6", "is_new": 1})
    assert not holds({"amount": True})
