"""Who is answered: keys, their scopes, and addresses that need them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.lifecycle.api_keys import SCOPES, create_key, revoke_key
from mlops_pipeline.serving.http import create_app
from mlops_pipeline.serving.protection import requires_keys
from mlops_pipeline.stores.clock import machine_now
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import Settings
from mlops_pipeline_tests.documentation import rows, sections, text_of
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import CASES, settings_at

FEATURES = "/features/customer/1?features=spent"
BODY = {"use_case": "shop", "entity_id": 1}


def keys_of(settings: Settings) -> dict[str, str]:
    """A key of each scope, named like it."""
    with OpsDatabase.open(settings.database_url) as ops:
        now = machine_now()  # by which keys end, whatever the Clock says
        end = now + timedelta(days=1)
        return {
            scope: create_key(ops, scope, [scope], by="Ann", expires_at=end, now=now)
            for scope in SCOPES
        }


@pytest.fixture
def keys(changed: Path) -> dict[str, str]:
    release(settings_at(changed))
    return keys_of(settings_at(changed))


@pytest.fixture
def client(changed: Path, keys: dict[str, str]) -> Iterator[TestClient]:
    app = create_app(CASES, settings_at(changed), asks_for_keys=True)
    with TestClient(app) as opened:
        yield opened


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "mlops_no"}, bearer("mlops_no"), {"Authorization": "Basic eA=="}]
)
def test_request_without_a_valid_key_is_refused_before_it_is_read(
    client: TestClient, headers: dict[str, str]
) -> None:
    for said in (
        client.get(FEATURES, headers=headers),
        client.post("/v1/predict", content=b"{no json", headers=headers),
        client.get("/nothing", headers=headers),
        client.get("/openapi.json", headers=headers),
    ):
        assert problem_of(said) == (401, "key-unknown")
        assert said.headers["www-authenticate"] == "Bearer"
    assert client.get("/health/live", headers=headers).status_code == 200


def test_key_opens_what_its_scope_says(client: TestClient, keys: dict[str, str]) -> None:
    for name, key in keys.items():
        for header in (bearer(key), {"X-API-Key": key}):
            read = client.get(FEATURES, headers=header).status_code
            asked = client.post("/v1/predict", json=BODY, headers=header).status_code
            assert read == (200 if name in ("read", "admin") else 403), name
            assert asked == (200 if name in ("predict", "admin") else 403), name
    refused = client.get(FEATURES, headers=bearer(keys["predict"]))
    assert problem_of(refused) == (403, "key-lacks-scope")
    assert refused.json()["expected"] == "read"


def test_revoked_key_is_refused_when_the_ledger_was_looked_at(
    client: TestClient, keys: dict[str, str], changed: Path
) -> None:
    assert client.get(FEATURES, headers=bearer(keys["read"])).status_code == 200
    with OpsDatabase.open(settings_at(changed).database_url) as ops:
        revoke_key(ops, "read", by="Ann", now=machine_now())
    client.app.state.gate.keys.refresh()  # type: ignore[attr-defined] # of Starlette's app
    assert client.get(FEATURES, headers=bearer(keys["read"])).status_code == 401


def test_receipt_that_was_read_is_chained_under_the_name_of_the_key(
    changed: Path, keys: dict[str, str]
) -> None:
    with TestClient(create_app(CASES, settings_at(changed), asks_for_keys=True)) as client:
        made = client.post("/v1/predict", json=BODY, headers=bearer(keys["predict"])).json()
        path = f"/v1/predictions/{made['prediction_id']}?use_case=shop"
        assert client.get(path, headers=bearer(keys["read"])).status_code == 200
        assert client.get(path).status_code == 401
    with OpsDatabase.open(settings_at(changed).database_url) as ops:
        found = {event.detail["key"]: event.detail["counts"] for event in
                 ops.audit_events(kind="key_use")}  # fmt: skip
    assert found == {
        "predict": {"/v1/predict 200": 1},
        "read": {"/v1/predictions/{prediction_id} 200": 1},
        "(none)": {"(no route) 401": 1},
    }


def test_request_id_is_of_a_key(client: TestClient, keys: dict[str, str]) -> None:
    body = {**BODY, "request_id": "a"}
    first = client.post("/v1/predict", json=body, headers=bearer(keys["predict"])).json()
    other = {**body, "entity_id": 2}
    assert client.post("/v1/predict", json=other, headers=bearer(keys["admin"])).status_code == 200
    assert client.post("/v1/predict", json=body, headers=bearer(keys["predict"])).json() == first


def test_server_that_requires_no_keys_refuses_a_wrong_one_all_the_same(shops: Path) -> None:
    with client_at(shops) as client:
        assert client.get(FEATURES).status_code == 200
        assert client.get(FEATURES, headers=bearer("mlops_no")).status_code == 401


def test_address_decides_whether_keys_are_required(changed: Path) -> None:
    settings = settings_at(changed)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert requires_keys(settings, host) is False
    for host in ("0.0.0.0", "192.0.2.7", "example.org"):
        with pytest.raises(ConfigError, match="mlops keys create"):
            requires_keys(settings, host)
        assert requires_keys(settings, host, is_insecure=True) is False
    with pytest.raises(ConfigError):
        requires_keys(settings, "127.0.0.1", is_strict=True)
    keys_of(settings)
    assert requires_keys(settings, "0.0.0.0") is True
    assert requires_keys(settings, "127.0.0.1", is_strict=True) is True


def test_scope_of_every_endpoint_is_documented(client: TestClient, keys: dict[str, str]) -> None:
    paths = client.get("/openapi.json", headers=bearer(keys["admin"])).json()["paths"]
    table = rows(sections(text_of("docs/serving.md"))["Endpoints"])
    documented = {row[0].strip("`"): row[1].strip("`") for row in table}
    for path, methods in paths.items():
        for method in methods:
            said = client.request(method, path.replace("{", "").replace("}", ""))
            scope = documented[f"{method.upper()} {path}"]
            if scope == "none":
                assert said.status_code == 200
                continue
            assert said.status_code == 401
            for name, key in keys.items():
                is_open = client.request(method, path, headers=bearer(key)).status_code != 403
                assert is_open == (name in (scope, "admin")), (path, name)
