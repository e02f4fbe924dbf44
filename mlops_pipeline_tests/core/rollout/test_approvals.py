"""Names and reasons: what is kept shows, and one person is one name however it is written."""

from dataclasses import replace

import pytest

from mlops_pipeline.core.rollout.approvals import check_four_eyes, person_name, signed
from mlops_pipeline.core.rollout.records import Rollout
from mlops_pipeline.errors import StateError
from mlops_pipeline_tests.stores.ops.timestamps import NOON

WAITING = Rollout(
    1,
    "churn",
    2,
    "awaiting_approval",
    None,
    ("full",),
    "m",
    "d",
    "f",
    "passed",
    "approval",
    NOON,
    NOON,
    None,
    None,
)


@pytest.mark.parametrize(
    "name",
    ["", "  ", "\u200b", "...", "ada\u200blovelace", "a\u00adda", "ada\x1b[31m", "ada\x00",
     "\ud800a", "a" * 201],
)  # fmt: skip
def test_name_that_does_not_show_is_refused(name: str) -> None:
    with pytest.raises(StateError, match="letters that show"):
        signed(name, "good", NOON)


@pytest.mark.parametrize("reason", ["", " \n", "\u200b", "bad\x1b[2J", "r" * 10_001])
def test_reason_that_does_not_show_is_refused(reason: str) -> None:
    with pytest.raises(StateError, match="'reason'"):
        signed("ada", reason, NOON)


def test_name_is_kept_in_one_form_and_a_reason_as_it_is() -> None:
    said = signed("  Ada \t Lovelace ", "first line\nsecond line ", NOON)
    assert (said.by, said.reason) == ("Ada Lovelace", "first line\nsecond line")
    assert person_name("A\u0301da") == "\u00c1da"  # composed


@pytest.mark.parametrize(
    "other",
    ["Ada Lovelace", "ADA  LOVELACE", "\uff21da Lovelace", "Ada.Lovelace", "\u00c1da L\u00f6velace",
     "\u0410d\u0430 L\u043ev\u0435l\u0430c\u0435"],
)  # fmt: skip
def test_four_eyes_sees_one_person_however_the_name_is_written(other: str) -> None:
    with pytest.raises(StateError, match="somebody else"):
        check_four_eyes(WAITING, "ada lovelace", other)


def test_four_eyes_lets_another_person_approve() -> None:
    check_four_eyes(replace(WAITING, version=3), "ada", "grace")
