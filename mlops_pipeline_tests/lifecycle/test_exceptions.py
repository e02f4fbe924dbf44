from datetime import timedelta
from typing import Any

import pytest

from mlops_pipeline.core.evaluation.records import GateException
from mlops_pipeline.errors import NotFoundError, StateError
from mlops_pipeline.lifecycle.exceptions import grant_exception, list_exceptions, revoke_exception
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.stores.ops.timestamps import NOON, later

END = NOON + timedelta(days=30)


def grant(database: OpsDatabase, **changes: Any) -> GateException:
    said: dict[str, Any] = {"by": " Ann ", "reason": "mending", "expires_at": END, "now": NOON}
    return grant_exception(database, "churn", "demographic_parity", "region", **(said | changes))


def test_granted_exception_is_listed_and_in_force(database: OpsDatabase) -> None:
    given = grant(database)
    assert list_exceptions(database, "churn") == [given]
    assert list_exceptions(database, "fraud") == []
    assert (given.by, given.reason, given.attribute) == ("Ann", "mending", "region")
    assert given.is_in_force(NOON)
    assert not given.is_in_force(END)


def test_exception_granted_again_as_it_is_in_force_is_not_there_twice(
    database: OpsDatabase,
) -> None:
    given = grant(database)
    assert grant(database, now=later(60)) == given
    revoke_exception(database, "churn", given.id, by="Bob", reason="mended", now=later(70))
    assert grant(database, now=later(80)).id != given.id


def test_revoked_exception_stays_with_who_ended_it(database: OpsDatabase) -> None:
    given, other = grant(database), grant(database, reason="something else")
    revoke_exception(database, "churn", given.id, by="Bob", reason="mended", now=later(60))
    found, kept = list_exceptions(database, "churn")
    assert (found.revoked_by, found.revocation, found.revoked_at) == ("Bob", "mended", later(60))
    assert found.is_in_force(later(59))
    assert not found.is_in_force(later(60))
    assert kept == other


def test_granting_and_revoking_are_audit_events(database: OpsDatabase) -> None:
    given = grant(database)
    revoke_exception(database, "churn", given.id, by="Bob", reason="mended", now=later(60))
    (revoked,) = database.audit_events(kind="exception_revoked")
    (granted,) = database.audit_events(kind="exception_granted")
    assert (granted.kind, granted.actor, granted.at) == ("exception_granted", "Ann", NOON)
    assert granted.detail == {
        "id": given.id,
        "rule": "demographic_parity",
        "attribute": "region",
        "expires_at": END.isoformat(),
        "reason": "mending",
    }
    assert (revoked.kind, revoked.actor) == ("exception_revoked", "Bob")
    assert revoked.detail["revokes"] == given.id


def test_exception_is_revoked_once_and_only_while_it_lasts(database: OpsDatabase) -> None:
    given, short = grant(database), grant(database, expires_at=later(10))
    revoke_exception(database, "churn", given.id, by="Bob", reason="mended", now=later(1))
    with pytest.raises(StateError, match="revoked by Bob"):
        revoke_exception(database, "churn", given.id, by="Cid", reason="again", now=later(2))
    with pytest.raises(StateError, match="expired"):
        revoke_exception(database, "churn", short.id, by="Bob", reason="late", now=later(10))
    assert len(database.audit_events(kind="exception_revoked")) == 1


def test_exception_that_is_not_there_cannot_be_revoked(database: OpsDatabase) -> None:
    given = grant(database)
    for use_case, number in (("churn", given.id + 7), ("fraud", given.id)):
        with pytest.raises(NotFoundError, match=f"no exception {number} of {use_case}"):
            revoke_exception(database, use_case, number, by="Bob", reason="no", now=NOON)


@pytest.mark.parametrize("blank", [{"by": " "}, {"reason": ""}])
def test_exception_needs_a_name_and_a_reason(database: OpsDatabase, blank: dict[str, str]) -> None:
    with pytest.raises(StateError, match=f"needs '{next(iter(blank))}'"):
        grant(database, **blank)
    assert list_exceptions(database, "churn") == []
