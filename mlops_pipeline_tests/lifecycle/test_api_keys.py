"""Keys of the service: what is stored of one, when it counts, and what the chain says of it."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from mlops_pipeline.errors import ConfigError, NotFoundError, StateError
from mlops_pipeline.lifecycle.api_keys import (
    KeyRing,
    create_key,
    list_keys,
    revoke_key,
    rotate_key,
)
from mlops_pipeline.lifecycle.compliance.anchors import verify_audit
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.stores.ops.tampering import tamper

NOW = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def made(ops: OpsDatabase, name: str = "shop", scopes: tuple[str, ...] = ("predict",)) -> str:
    return create_key(ops, name, scopes, by="Ann", expires_at=NOW + DAY, now=NOW)


def test_key_is_stored_as_its_hash_only(ops: OpsDatabase, settings: Settings) -> None:
    key = made(ops)
    with sqlite3.connect(settings.database_url.removeprefix("sqlite:///")) as raw:
        assert key not in "\n".join(raw.iterdump())
    raw.close()


def test_ring_finds_a_key_until_it_expires(ops: OpsDatabase, settings: Settings) -> None:
    key = made(ops, scopes=("predict", "read"))
    with KeyRing(settings) as ring:
        found = ring.find(key, NOW)
        assert found is not None
        assert (found.name, found.scopes) == ("shop", ("predict", "read"))
        assert (found.allows("read"), found.allows("label")) == (True, False)
        assert ring.find(key, NOW + DAY) is None
        assert ring.find(f"{key}x", NOW) is None


def test_ring_that_looks_again_refuses_a_revoked_key(ops: OpsDatabase, settings: Settings) -> None:
    key = made(ops)
    with KeyRing(settings) as ring:
        assert revoke_key(ops, "shop", by="Eve", now=NOW) == 1
        ring.refresh()
        assert ring.find(key, NOW) is None
    (found,) = list_keys(ops)
    assert found.revoked_by == "Eve"


def test_rotated_key_counts_until_the_overlap_ends(ops: OpsDatabase, settings: Settings) -> None:
    old = made(ops)
    hour = timedelta(hours=1)
    new = rotate_key(
        ops, "shop", by="Ann", ends_at=NOW + hour, expires_at=NOW + 9 * DAY, now=NOW
    )  # fmt: skip
    with KeyRing(settings) as ring:
        for now, valid in ((NOW, {old, new}), (NOW + hour, {new}), (NOW + 9 * DAY, set())):
            assert {key for key in (old, new) if ring.find(key, now)} == valid
    assert {key.scopes for key in list_keys(ops)} == {("predict",)}


def test_admin_opens_everything(ops: OpsDatabase) -> None:
    made(ops, scopes=("admin",))
    assert list_keys(ops)[0].allows("label")


def test_name_is_taken_while_its_key_counts(ops: OpsDatabase) -> None:
    made(ops)
    with pytest.raises(StateError, match="rotate shop"):
        made(ops)
    revoke_key(ops, "shop", by="Ann", now=NOW)
    made(ops)
    with pytest.raises(NotFoundError, match="did you mean 'shop'"):
        revoke_key(ops, "shopp", by="Ann", now=NOW)


@pytest.mark.parametrize(
    ("name", "scopes", "days", "error"),
    [
        ("two words", ("predict",), 1, ConfigError),
        ("", ("predict",), 1, ConfigError),
        ("shop", (), 1, ConfigError),
        ("shop", ("predikt",), 1, NotFoundError),
        ("shop", ("predict",), 0, ConfigError),
    ],
)
def test_key_that_is_none_is_refused(
    ops: OpsDatabase, name: str, scopes: tuple[str, ...], days: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        create_key(ops, name, scopes, by="Ann", expires_at=NOW + days * DAY, now=NOW)
    assert list_keys(ops) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE api_key SET digest = 'mine' WHERE id = 1",
        "UPDATE api_key SET scopes = '[\"admin\"]' WHERE id = 1",
        "DELETE FROM api_key WHERE ends IS NOT NULL",
    ],
)
def test_altered_key_is_found_by_the_audit(
    ops: OpsDatabase, settings: Settings, change: str
) -> None:
    made(ops)
    revoke_key(ops, "shop", by="Ann", now=NOW)
    kinds = [event.kind for event in ops.audit_events() if event.kind != "record"]
    assert kinds == ["api_key_ended", "api_key_created"]
    tamper(ops, change)
    assert any(
        "api_key 1" in str(one) or "api_key 2" in str(one)
        for one in verify_audit(settings)[0].problems
    )
