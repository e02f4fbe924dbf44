from typing import Any

from mlops_pipeline.core.rollout.approvals import Signed
from mlops_pipeline.lifecycle.compliance.erasure import (
    finish_tombstone,
    get_tombstone,
    set_tombstone,
)
from mlops_pipeline.lifecycle.ingest.ingestion import EVERY, forgotten_pseudonyms
from mlops_pipeline.stores.ops import OpsDatabase, Tombstone
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later


def set_one(
    database: OpsDatabase, use_case: str = EVERY, by: str = "ada", **changed: Any
) -> Tombstone:
    values: dict[str, Any] = {
        **{"model_versions": {"churn": [2]}, "found": {"rows": 5}},
        "said": Signed(by, "asked", NOON),
        **changed,
    }
    return set_tombstone(database, "customer", "0f", use_case=use_case, **values)


def test_tombstone_of_every_use_case_keeps_out_of_all_and_of_that_entity_only(
    database: OpsDatabase,
) -> None:
    set_one(database)
    assert forgotten_pseudonyms(database, "churn", "customer") == {"0f"}
    assert forgotten_pseudonyms(database, "fraud", "customer") == {"0f"}
    assert forgotten_pseudonyms(database, "churn", "merchant") == frozenset()


def test_tombstone_of_one_use_case_keeps_out_of_that_one(database: OpsDatabase) -> None:
    set_one(database, "churn")
    assert forgotten_pseudonyms(database, "churn", "customer") == {"0f"}
    assert forgotten_pseudonyms(database, "fraud", "customer") == frozenset()
    assert get_tombstone(database, "customer", "0f", EVERY) is None


def test_tombstone_again_keeps_the_first_reason_and_adds_model_versions(
    database: OpsDatabase,
) -> None:
    held = set_one(database)
    finish_tombstone(database, held, {"rows": 3}, by="ada", now=later(1))
    again = set_one(database, model_versions={"churn": [1, 2], "fraud": [4]}, by="bob")
    assert again == Tombstone(
        "customer", "0f", EVERY, {"churn": [1, 2], "fraud": [4]}, "ada", "asked", NOON, None
    )


def test_tombstone_is_told_to_the_audit_chain_twice(database: OpsDatabase) -> None:
    held = set_one(database, "churn")
    done = finish_tombstone(database, held, {"rows": 3}, by="ada", now=later(1))
    assert done.finished_at == later(1)
    (finished,) = database.audit_events(kind="forgotten")
    (begun,) = database.audit_events(kind="forget")
    assert (begun.kind, begun.use_case, begun.actor) == ("forget", "churn", "ada")
    assert begun.detail["model_versions"] == {"churn": [2]}
    assert (finished.kind, finished.detail["rows"]) == ("forgotten", 5)
    assert {begun.detail["pseudonym"], finished.detail["pseudonym"]} == {"0f"}
