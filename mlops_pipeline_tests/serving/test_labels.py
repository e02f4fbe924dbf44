"""Labels over HTTP: a delivery that the lifecycle ingests, known from its arrival on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlops_pipeline.lifecycle.labels import deliver_labels
from mlops_pipeline_tests.serving.client import client_at, problem_of
from mlops_pipeline_tests.serving.shops import SHOP_CASE, TILL_CASE, settings_at
from mlops_pipeline_tests.worlds import NOW, World, ingest_all, stored_rows

AT = "2025-05-31T10:00:00+02:00"
ROW: dict[str, Any] = {
    "customer": 7, "at": AT, "amount": 2, "units": 3, "kind": "web",
}  # fmt: skip


def post(root: Path, *rows: dict[str, Any], **other: Any) -> Any:
    body = {"use_case": "shop", "source": "visits", "rows": rows, **other}
    with client_at(root) as client:
        return client.post("/v1/labels", json=body)


def test_rows_are_ingested_and_known_from_their_arrival_on(changed: Path) -> None:
    said = post(changed, ROW, {**ROW, "customer": 8, "units": None})
    assert said.status_code == 202
    assert said.json()["rows"] == 2
    assert said.json()["available_at"] == NOW.isoformat()
    with World(SHOP_CASE, changed / "data").open() as work:
        ingest_all(work, NOW + timedelta(hours=1))
        stored = stored_rows(work, work.lake.table_uri("shop", "raw", "visits"))
    found = {row["customer"]: row for row in stored if row["customer"] in (7, 8)}
    assert found[7]["known"].replace(tzinfo=None) == NOW.replace(tzinfo=None)
    assert found[7]["at"].isoformat()[:16] == "2025-05-31T08:00"
    assert (found[7]["amount"], found[7]["units"], found[7]["kind"]) == (2.0, 3, "web")
    assert found[8]["units"] is None
    assert not list(settings_at(changed).data_dir.glob("visits/.*"))


@pytest.mark.parametrize(
    ("rows", "other", "expected"),
    [
        ([], {}, 422),
        ([ROW] * 1_001, {}, 422),
        ([{**ROW, "units": "3"}], {}, 422),
        ([{**ROW, "units": 2**63}], {}, 422),
        ([{**ROW, "units": True}], {}, 422),
        ([{**ROW, "at": "yesterday"}], {}, 422),
        ([{**ROW, "amount": 10**400}], {}, 422),
        ([{**ROW, "known": AT}], {}, 404),
        ([{**ROW, "unitz": 1}], {}, 404),
        ([ROW], {"source": "visit"}, 404),
        ([ROW], {"use_case": None}, 422),
    ],
)
def test_rows_that_are_not_of_the_source_are_refused(
    changed: Path, rows: list[Any], other: dict[str, Any], expected: int
) -> None:
    before = sorted((changed / "data" / "visits").iterdir())
    assert problem_of(post(changed, *rows, **other))[0] == expected
    assert sorted((changed / "data" / "visits").iterdir()) == before


def test_same_request_again_is_one_delivery_and_other_rows_are_refused(changed: Path) -> None:
    first = post(changed, ROW, request_id="case-9").json()
    with client_at(changed, NOW + timedelta(hours=1)) as client:
        body = {"use_case": "shop", "source": "visits", "rows": [ROW], "request_id": "case-9"}
        assert client.post("/v1/labels", json=body).json() == first  # also the first arrival
        other = client.post("/v1/labels", json={**body, "rows": [{**ROW, "units": 4}]})
        assert problem_of(other) == (409, "request-conflict")
        assert client.post("/v1/labels", json={**body, "request_id": "x" * 101}).status_code == 422
        newer = client.post("/v1/labels", json={**body, "request_id": "case-10"}).json()
    assert newer["delivery"] != first["delivery"]
    assert len(list((changed / "data" / "visits").glob("labels-*"))) == 2


def test_many_at_once_with_one_id_are_one_delivery(changed: Path) -> None:
    settings = settings_at(changed)

    def deliver(number: int) -> str:
        made = deliver_labels(
            SHOP_CASE, settings, "visits", [ROW], now=NOW + timedelta(seconds=number),
            request=("key", "case-9"),
        )  # fmt: skip
        return made.path.name

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(deliver, range(32)))) == 1


def test_label_that_contradicts_a_delivered_row_of_its_key_revises_it_and_is_counted(
    changed: Path,
) -> None:
    known = {"customer": 1, "at": "2025-04-05T00:00:00", "amount": 99.0, "units": 1, "kind": "web"}
    body = {"use_case": "till", "source": "visits", "rows": [known]}
    with client_at(changed) as client:
        assert client.post("/v1/labels", json=body).status_code == 202
    with World(TILL_CASE, changed / "data").open() as work:
        (done,) = ingest_all(work, NOW + timedelta(hours=1)).values()
        stored = stored_rows(work, work.lake.table_uri("till", "raw", "visits"))
    of_key = [row for row in stored if (row["customer"], row["at"].month) == (1, 4)]
    assert (done.rows_revised, [row["amount"] for row in of_key]) == (1, [2.5, 99.0])
    assert of_key[0]["_superseded_at"].replace(tzinfo=None) == NOW.replace(tzinfo=None)
