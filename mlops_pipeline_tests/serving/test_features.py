"""The features endpoint on a real SQLite store: values, freshness, wrong requests."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mlops_pipeline.lifecycle.bookkeeping import feature_uses
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.shops import FRESH_DAYS, SHOP_CASE, TTL_DAYS, settings_at
from mlops_pipeline_tests.worlds import NOW


@pytest.fixture(scope="module")
def client(shops: Path) -> Iterator[TestClient]:
    with client_at(shops) as opened:
        yield opened


# values


def test_features_of_a_known_entity_have_value_status_and_time(client: TestClient) -> None:
    answer = client.get("/features/customer/1?features=visits,spent_a_visit,last_kind")
    assert answer.status_code == 200
    fresh = {"status": "fresh", "feature_time": NOW.isoformat()}
    assert answer.json() == {
        "entity": "customer",
        "id": "1",
        "use_case": "shop",
        "read_at": NOW.isoformat(),
        "features": {
            "visits": {"value": 2, **fresh},
            "spent_a_visit": {"value": 6.25, **fresh},
            "last_kind": {"value": "web", **fresh},
        },
    }


def test_features_that_are_fresh_say_how_old_they_are(shops: Path) -> None:
    with client_at(shops, NOW + timedelta(hours=1, milliseconds=900)) as client:
        headers = client.get("/features/customer/1?features=visits").headers
    assert headers["feature-time"] == NOW.isoformat()
    assert headers["age"] == "3600"
    assert headers["cache-control"] == "no-store"
    assert not {"x-features-stale", "x-features-missing"} & set(headers)


def test_features_by_their_full_name_are_the_same(client: TestClient) -> None:
    answer = client.get("/features/customer/1?features=customer:visits&features=spent")
    assert list(answer.json()["features"]) == ["visits", "spent"]


def test_features_not_named_are_all_of_the_use_case(client: TestClient) -> None:
    answer = client.get("/features/customer/1?use_case=shop")
    assert list(answer.json()["features"]) == list(SHOP_CASE.features)


def test_features_past_their_freshness_are_stale_and_given(shops: Path) -> None:
    with client_at(shops, NOW + timedelta(days=FRESH_DAYS, seconds=1)) as client:
        answer = client.get("/features/customer/1?features=visits,spent_a_visit,last_kind")
    assert answer.status_code == 200
    assert answer.headers["x-features-stale"] == "visits,spent_a_visit"
    found = answer.json()["features"]
    assert (found["visits"]["value"], found["visits"]["status"]) == (2, "stale")
    assert found["last_kind"]["status"] == "fresh"


def test_features_past_their_time_to_live_are_missing(shops: Path) -> None:
    with client_at(shops, NOW + timedelta(days=TTL_DAYS, seconds=1)) as client:
        answer = client.get("/features/customer/1?features=visits,last_kind")
    assert answer.status_code == 200
    assert answer.headers["x-features-missing"] == "visits"
    assert answer.json()["features"]["visits"]["value"] is None
    assert answer.json()["features"]["last_kind"]["value"] == "web"


# request-time features


def test_features_of_a_request_are_computed_from_its_columns(client: TestClient) -> None:
    names = "amount_now,amount_to_habit,visits_last_hour"
    answer = client.get(f"/features/customer/2?features={names}&amount=15.0")
    values = {name: item["value"] for name, item in answer.json()["features"].items()}
    assert values == {"amount_now": 15.0, "amount_to_habit": 3.75, "visits_last_hour": 1}


def test_features_of_a_request_without_its_columns_are_422_naming_them(client: TestClient) -> None:
    answer = client.get("/features/customer/2?features=amount_to_habit")
    assert problem_of(answer) == (422, "unusable-request")
    assert "amount" in str(answer.json())


def test_features_not_named_leave_out_those_of_a_request(client: TestClient) -> None:
    url = "/features/customer/2?use_case=till"
    without = client.get(url).json()["features"]
    given = client.get(f"{url}&amount=1").json()["features"]
    assert set(given) - set(without) == {"amount_now", "amount_to_habit"}
    assert "units_30d" not in given


# what the request gets wrong


@pytest.mark.parametrize(
    ("path", "status", "kind", "says"),
    [
        ("custmer/1?features=visits", 404, "not-found", "'customer'"),
        ("customer/1?features=vists", 404, "not-found", "visits"),
        ("customer/1?features=visits&use_case=shp", 404, "not-found", "'shop'"),
        ("customer/1?features=vists&use_case=shop", 404, "not-found", "visits"),
        ("customer/1?features=units_30d", 404, "not-found", "units_30d"),
        ("customer/1", 422, "unusable-request", "shop, till"),
        ("customer/2?features=amount_now&amount=dear", 422, "unusable-request", "float64"),
        ("customer/2?features=visits&amuont=1", 422, "unusable-request", "amuont"),
        ("customer/2?use_case=till&feature=visits", 422, "unusable-request", "'features'"),
        ("customer/2?features=amount_now&amount=1&amount=2", 422, "unusable-request", "twice"),
    ],
)
def test_request_that_is_wrong_is_answered_with_the_way_out(
    client: TestClient, path: str, status: int, kind: str, says: str
) -> None:
    answer = client.get(f"/features/{path}")
    assert problem_of(answer) == (status, kind)
    body = answer.json()
    assert says in " ".join(str(text) for text in body.values())
    assert {"detail", "where", "expected", "way_out"} <= set(body)


def test_id_of_another_type_is_422_and_not_repeated(client: TestClient) -> None:
    answer = client.get("/features/customer/one?features=visits")
    assert problem_of(answer) == (422, "unusable-request")
    assert answer.json()["expected"] == "decimal digits"
    assert "one" not in answer.json()["found"]


def test_unknown_id_is_a_problem_of_its_own(client: TestClient) -> None:
    answer = client.get("/features/customer/99?features=visits")
    assert problem_of(answer) == (404, "unknown-id")
    assert answer.json()["use_case"] == "shop"


def test_unknown_path_and_method_are_problems(client: TestClient) -> None:
    assert problem_of(client.get("/feature/customer/1")) == (404, "about:blank")
    answer = client.post("/features/customer/1")
    assert problem_of(answer) == (405, "about:blank")
    assert answer.headers["allow"] == "GET"


# who reads what


def test_reads_are_told_to_the_catalogue_once_a_day(changed: Path) -> None:
    database = changed / "data" / "ops.db"
    database.unlink()

    def last_used() -> dict[str, datetime]:
        with OpsDatabase.open(settings_at(changed).database_url) as ops:
            uses = feature_uses(ops, "shop")
        return {use.feature: use.last_used_at for use in uses if use.reader == "online"}

    with client_at(changed) as client:
        client.get("/features/customer/1?features=visits")
        assert last_used() == {"visits": NOW}
        database.unlink()
        client.get("/features/customer/2?features=visits")
        client.get("/features/customer/99?features=spent")
        assert not database.exists()
    with client_at(changed, NOW + timedelta(days=1)) as client:
        client.get("/features/customer/1?features=visits")
    assert last_used() == {"visits": NOW + timedelta(days=1)}
