"""Figures of the service, as Prometheus reads them."""

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline_tests.serving.client import client_at
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import settings_at

TRIAL: dict[str, Any] = {"stages": ["shadow", "full"], "test_entities": ["2"]}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_say_what_was_requested_and_decided(changed: Path) -> None:
    release(settings_at(changed), 1)
    release(settings_at(changed), 2)
    with client_at(changed) as client:
        for entity in (1, 2, 99):
            client.post("/v1/predict", json={"use_case": "shop", "entity_id": entity})
        client.get("/nothing")
        said = client.get("/metrics")
    assert said.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples_of(said.text)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    route = {"route": "/v1/predict"}
    assert value("mlops_requests_total", **route, status="200", key="(none)") == 3
    assert value("mlops_requests_total", route="(no route)", status="404", key="(none)") == 1
    assert value("mlops_request_seconds_count", **route) == 3
    decided = {labels: count for (name, labels), count in found.items()
               if name == "mlops_decisions_total"}  # fmt: skip
    assert sum(decided.values()) == 3
    champions = sum(count for labels, count in decided.items() if ("version", "2") in labels)
    assert champions == 2
    reason = {"use_case": "shop", "reason": "the entity is not known"}
    assert value("mlops_default_reasons_total", **reason) == 1
    shop = {"use_case": "shop"}
    assert value("mlops_log_queue", **shop) == 0
    assert value("mlops_requests_under_way") == 1  # this one
    about = {"version": "2", "fingerprint": "fingerprint-2"}
    assert value("mlops_model_info", **shop, role="champion", **about) == 1
    assert value("mlops_breaker", **shop, version="2", state="closed") == 1
    assert value("mlops_breaker", **shop, version="1", state="open") == 0
    assert not any("99" in dict(labels).values() for _, labels in found)  # no id of anybody


def test_metrics_tell_of_a_version_in_trial(changed: Path) -> None:
    settings, policy = settings_at(changed), RolloutPolicy.model_validate(TRIAL)
    release(settings, 1)
    release(settings, 2, policy=policy)
    with client_at(changed) as client:
        for entity in (1, 2):
            client.post("/v1/predict", json={"use_case": "shop", "entity_id": entity})
        found = samples_of(client.get("/metrics").text)
    shop = ("use_case", "shop")
    about = {("version", "2"), ("fingerprint", "fingerprint-2"), ("role", "canary")}
    assert found["mlops_model_info", frozenset({shop, *about})] == 1
    decided = {("role", "canary"), ("version", "2"), ("decision", "true")}
    other = {("role", "canary"), ("version", "2"), ("decision", "false")}
    counts = [found.get(("mlops_decisions_total", frozenset({shop, *one})), 0.0)
              for one in (decided, other)]  # fmt: skip
    assert sum(counts) == 1  # entity 2
    assert found["mlops_shadow_queue", frozenset({shop})] in {0, 1, 2}  # as fast as the thread is
    assert found["mlops_shadow_dropped_total", frozenset({shop})] == 0
