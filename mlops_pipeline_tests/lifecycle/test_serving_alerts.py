"""Alerts of the service: one for each reason and window, and one for an open breaker."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlops_pipeline.core.rollout.breaker import Breaker
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.entity_rows import EntityRow
from mlops_pipeline.lifecycle.live_models import LiveModel
from mlops_pipeline.stores.ops import Alert, OpsDatabase
from mlops_pipeline_tests.lifecycle.test_serve import Served, ask
from mlops_pipeline_tests.serving.conftest import changed, shops
from mlops_pipeline_tests.serving.served_shop import release
from mlops_pipeline_tests.serving.shops import settings_at

__all__ = ["changed", "shops"]

ROW = {"visits": 2, "spent": 1234.5, "last_kind": "web", "spent_a_visit": 6.25}
RULES = [{"rule": "range", "column": "spent", "min": 0, "max": 10}]


@pytest.fixture
def served(changed: Path) -> Iterator[Served]:
    with ExitStack() as stack:
        yield Served(settings_at(changed), stack)


def alerts(served: Served, kind: str) -> list[Alert]:
    with OpsDatabase.open(served.settings.database_url) as ops:
        return [one for one in list_alerts(ops, "shop", open_only=True) if one.kind == kind]


def test_refused_inputs_are_one_alert_a_window_with_count_and_a_redacted_example(
    served: Served,
) -> None:
    release(served.settings)
    service = served.service(inputs=RULES)
    made = [
        service.predict([EntityRow(number, features=ROW)], caller="(none)")[0]
        for number in range(7)
    ]
    ask(service, 99)
    assert alerts(served, "inputs") == []  # no write in a request
    service.alerts.end_window()
    stranger, refused = alerts(served, "inputs")
    assert refused.message == (
        "7 answers within 5 minutes were the default: spent is outside of [0, 10] "
        f"(for example prediction {made[0].id}, spent like 9999.9)"
    )
    assert refused.severity == "warning"
    assert stranger.message.startswith("1 answers within 5 minutes were the default: the entity")

    service.predict([EntityRow(1, features=ROW)], caller="(none)")
    service.alerts.end_window()
    (again,) = alerts(served, "inputs")  # the other one is over
    assert (again.id, again.times_raised) == (refused.id, 2)
    assert again.message.startswith("1 answers")
    service.alerts.end_window()
    assert alerts(served, "inputs") == []


def test_what_was_counted_is_told_when_the_service_ends(served: Served) -> None:
    release(served.settings)
    service = served.service(inputs=RULES)
    ask(service, 99)
    service.close()
    assert len(alerts(served, "inputs")) == 1


def test_open_breaker_is_an_alert_until_it_closes(served: Served) -> None:
    release(served.settings)
    service = served.service()
    assert isinstance(service.live, LiveModel)
    service.alerts.look_at_breakers()
    assert alerts(served, "breaker") == []
    guard = service.live.guard
    guard._breaker = Breaker("open", since=0.0)
    for _ in range(2):
        service.alerts.look_at_breakers()
    (one,) = alerts(served, "breaker")
    assert (one.severity, one.times_raised) == ("error", 1)
    assert "version 1 fails" in one.message
    guard._breaker = Breaker("half_open", since=0.0)
    service.alerts.look_at_breakers()
    assert len(alerts(served, "breaker")) == 1
    guard._breaker = Breaker(since=0.0)
    service.alerts.look_at_breakers()
    assert alerts(served, "breaker") == []
