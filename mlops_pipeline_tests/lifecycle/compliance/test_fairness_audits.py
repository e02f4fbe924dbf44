"""The live fairness audit: which rows and labels it reads, what it says, stores and alerts."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import fairlearn.metrics as oracle
import numpy as np
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.evaluation.outcomes import Gate, RuleResult
from mlops_pipeline.core.fairness.parity import LiveAudit, LiveDecisions, audit_decisions
from mlops_pipeline.core.modelling.scoring import ScoringModel
from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import list_decisions, set_pointer
from mlops_pipeline.lifecycle.compliance.fairness_audits import (
    live_decisions,
    raise_parity_alert,
    record_live_audit,
)
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.predictions import score_period
from mlops_pipeline.lifecycle.rollouts import open_rollout
from mlops_pipeline.orchestration.assets.scoring import scoring_assets
from mlops_pipeline.orchestration.resources import Platform
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline_tests.worlds import (
    NOW,
    PLANS,
    VISITS,
    World,
    accept_all,
    advance,
    materialize_in_process,
    on,
    plan,
    shop,
    utc,
    visit,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:AssetExecutionContext.run_id is deprecated:DeprecationWarning"
)
CUSTOMERS = range(40)
REGIONS = ("north", "south")


def case_of(**fairness: Any) -> UseCase:
    return shop(
        sources={"visits": VISITS, "plans": PLANS},
        protected={"region": {"source": "plans", "of": "region"}},
        fairness={"min_group_rows": 5, **fairness},
    )


def test_model_that_breaks_a_parity_rule_on_its_test_part_is_an_alert(tmp_path: Path) -> None:
    name = "demographic parity difference at most 0.05"
    broken = RuleResult(name, 0.2, 0.05, "failed", "warn", "region 0.200", ("region",))
    other = RuleResult("roc_auc at least 0.7", 0.6, 0.7, "failed", "block", "too low")
    case = case_of()
    with OpsDatabase.open(f"sqlite:///{tmp_path}/ops.db") as ops:
        for rules in ((other, broken), (broken,), (other,)):
            raise_parity_alert(ops, case, Gate(True, False, rules), run_id="r", now=NOW)
            alerts = list_alerts(ops, "shop", open_only=True)
            assert len(alerts) == (broken in rules)
        (alert,) = list_alerts(ops, "shop")
    assert (alert.kind, alert.times_raised) == ("fairness", 2)
    assert alert.message == (f"on the test part of the newest model: {name} (warn): region 0.200")
    assert alert.resolved_at == NOW


def frequent(threshold: float) -> ScoringModel:
    """Says 1 / (1 + exp(-visits)): who came twice has 0.88."""
    term = {"kind": "number", "input": 0, "log": False, "mean": 0.0, "scale": 1.0, "average": 0.0}
    return ScoringModel(
        {
            "kind": "logistic",
            "inputs": [{"name": "visits", "type": "number"}],
            "terms": [term],
            "coefficients": [1.0],
            "intercept": 0.0,
            "calibration": {"kind": "none"},
            "threshold": threshold,
        },
        None,
    )


def deliver(world: World) -> None:
    """Everybody came once in January; the south twice. In March every fourth comes again."""
    world.deliver("plans", [plan(on(1), who, region=REGIONS[who % 2]) for who in CUSTOMERS])
    visits = [visit(on(1, 5), who) for who in CUSTOMERS]
    visits += [visit(on(1, 9), who) for who in CUSTOMERS if who % 2]
    visits += [visit(on(3, 4), who) for who in CUSTOMERS if who % 4 == 0]
    world.deliver("visits", visits)


def say(world: World, until: datetime) -> None:
    """A visit and a plan of a stranger: the sources have delivered up to this moment."""
    world.deliver("visits", [visit(until, 999)])
    world.deliver("plans", [plan(until, 999)])


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(case_of(), tmp_path)
    deliver(made)
    say(made, on(3, 5))
    return made


@pytest.fixture
def work(world: World) -> Iterator[Context]:
    with world.open() as opened:
        advance(opened, NOW, utc(on(3)))
        yield opened


def score(work: Context, month: int, *, version: int = 1, threshold: float = 0.8) -> None:
    day = on(month).date().isoformat()
    score_period(work, frequent(threshold), version, day, train_missing={}, run_id="r", now=NOW)


def read(work: Context, version: int = 1) -> LiveDecisions:
    return live_decisions(work, accept_all(work), version, now=NOW)


# which rows and labels


def test_live_decisions_have_attributes_of_every_scored_row(work: Context) -> None:
    score(work, 2)
    found = read(work)
    assert found.entity.tolist() == list(CUSTOMERS)
    assert found.protected["region"].tolist() == [REGIONS[who % 2] for who in CUSTOMERS]
    assert found.decision.tolist() == [bool(who % 2) for who in CUSTOMERS]
    assert found.probability[1] == pytest.approx(1 / (1 + np.exp(-2)))


def test_label_that_the_sources_cannot_show_yet_is_not_known(world: World, work: Context) -> None:
    score(work, 2)
    score(work, 3)
    before = read(work)  # the Clock says June, the sources end on the fifth of March
    assert before.as_of == utc(on(3))
    assert not before.known.any()
    say(world, on(4, 2))
    advance(work, NOW, utc(on(4)))
    after = read(work)
    assert after.as_of == utc(on(4))
    assert after.known.all()
    labels = after.label.reshape(2, len(CUSTOMERS))
    assert not labels[0].any()  # 30 days from 1 February end on 3 March
    assert labels[1].tolist() == [int(who % 4 == 0) for who in CUSTOMERS]


def test_decisions_of_another_version_are_not_read(work: Context) -> None:
    score(work, 2, version=1, threshold=0.8)
    score(work, 2, version=2, threshold=0.0)
    assert read(work, 1).decision.sum() == len(CUSTOMERS) // 2
    assert read(work, 2).decision.all()
    assert len(read(work, 3).decision) == 0


def test_decisions_before_the_look_back_are_not_read(world: World, work: Context) -> None:
    score(work, 2)
    score(work, 3)
    world.use_case = case_of(lookback_days=10)
    with world.open() as shorter:
        assert len(read(shorter).decision) == len(CUSTOMERS)
    assert len(read(work).decision) == 2 * len(CUSTOMERS)


def test_events_of_one_moment_with_different_labels_are_unknown(tmp_path: Path) -> None:
    columns = {**VISITS["columns"], "bought": "string"}
    case = shop(
        sources={"visits": {**VISITS, "columns": columns}, "plans": PLANS},
        grid={"every": "event"},
        label={
            "kind": "column",
            "source": "visits",
            "column": "bought",
            "positive": "yes",
            "negative": "no",
        },
        protected={"region": {"source": "plans", "of": "region"}},
    )
    world = World(case, tmp_path)
    world.deliver("plans", [plan(on(1, 1), who) for who in (1, 2, 3)])
    said = [(1, "yes"), (2, "no"), (2, "yes"), (3, "no"), (3, "no")]
    world.deliver("visits", [visit(on(1, 5), who, bought=what) for who, what in said])
    with world.open() as work:
        advance(work, NOW, utc(on(2)))
        say_bought = [visit(on(2, 2), 999, bought="no")]
        world.deliver("visits", say_bought)
        world.deliver("plans", [plan(on(2, 2), 999)])
        advance(work, NOW, utc(on(2)))
        score(work, 1)
        found = read(work)
    assert found.entity.tolist() == [1, 2, 2, 3, 3]
    assert found.known.tolist() == [True, False, False, True, True]
    assert found.label[found.known].tolist() == [1, 0, 0]


# what is said


def audited(found: LiveDecisions | None, **fairness: Any) -> LiveAudit:
    return audit_decisions(case_of(**fairness).fairness, found)


def test_audit_of_labelled_decisions_is_fairlearns(world: World, work: Context) -> None:
    score(work, 3, threshold=0.8)
    say(world, on(4, 2))
    advance(work, NOW, utc(on(4)))
    found = read(work)
    (audit,) = audited(found).audits
    for name in ("demographic_parity_difference", "demographic_parity_ratio"):
        expected = getattr(oracle, name)(
            found.label, found.decision.astype(int), sensitive_features=found.protected["region"]
        )
        assert getattr(audit, name).value == expected
    north, south = audit.groups
    assert (north.rows, north.labelled, north.positives) == (20, 20, 10)
    assert south.tpr.reason == "no positive row"
    assert north.calibration is not None
    assert north.calibration.observed_rate.value == 0.5


def test_audit_without_a_known_label_judges_selection_and_says_so(work: Context) -> None:
    score(work, 2)
    found = audited(read(work))
    assert found.action == "alert"
    assert (found.rows, found.labelled, found.parity.value) == (40, 0, 1.0)
    assert "above 0.05 in region: region 1.000" in found.sentence
    assert "40 decisions of version 1" in found.sentence
    assert "of which no label is known by 2025-03-01" in found.sentence
    assert found.audits[0].equalized_odds_difference.value is None


def test_audit_within_the_limit_says_so(work: Context) -> None:
    score(work, 2, threshold=0.0)
    found = audited(read(work), demographic_parity_at_most=0.2)
    assert (found.action, found.parity.value) == ("within_limits", 0.0)
    assert found.sentence.startswith(
        "demographic parity difference within 0.2: region 0.000 (bounds 0."
    )


def test_audit_of_few_rows_does_not_say_that_groups_are_alike(work: Context) -> None:
    score(work, 2, threshold=0.0)
    found = audited(read(work))
    assert (found.action, found.parity.value) == ("uncertain", 0.0)
    assert "not told apart from 0.05 by so few rows: region 0.000" in found.sentence


@pytest.mark.parametrize("limit", [1.0, 0.05])
def test_audit_with_groups_that_are_too_small_is_not_computable(
    work: Context, limit: float
) -> None:
    score(work, 2)
    found = audited(read(work), min_group_rows=21, demographic_parity_at_most=limit)
    assert (found.action, found.parity.outcome) == ("not_computable", "not computable")
    assert "0 groups with enough rows" in found.sentence


def test_audit_without_scored_rows_or_champion_says_why(work: Context) -> None:
    found = audited(read(work))
    assert found.sentence == "not computable: version 1 has scored no row since 2024-03-01"
    assert audited(None).sentence == "not computable: there is no champion"
    assert audited(None).action == "not_computable"


# what is stored


def test_breach_alerts_once_and_the_next_audit_within_limits_resolves_it(
    world: World, work: Context
) -> None:
    score(work, 2, version=1)
    score(work, 2, version=2, threshold=0.0)
    breach, fine = (
        audited(read(work, version), demographic_parity_at_most=0.2) for version in (1, 2)
    )
    with OpsDatabase.open(world.settings.database_url) as ops:
        for _ in range(2):
            file = record_live_audit(work, ops, breach, run_id="one", now=NOW)
        (alert,) = list_alerts(ops, "shop", open_only=True)
        assert (alert.kind, alert.severity, alert.times_raised) == ("fairness", "warning", 2)
        assert "docs/runbook.md" in alert.action
        record_live_audit(work, ops, audited(None), run_id="two", now=NOW)
        assert len(list_alerts(ops, "shop", open_only=True)) == 1  # nothing is known of it
        later = NOW + timedelta(days=30)
        record_live_audit(work, ops, fine, run_id="three", now=later)
        (alert,) = list_alerts(ops, "shop")
        assert (alert.resolved_at, alert.resolved_by) == (later, "three")
        kept = list_decisions(ops, "shop", kind="fairness_audit")
    actions = [item.action for item in kept]
    assert actions == ["within_limits", "not_computable", "alert", "alert"]
    assert kept[-1].reason == breach.sentence
    assert kept[-1].evidence["above"] == ["region"]
    stored = json.loads(file.read_text())
    assert (stored["run_id"], stored["action"]) == ("three", "within_limits")
    assert stored["audits"][0]["groups"][0]["rows"] == 20


def materialize(world: World) -> dg.ExecuteInProcessResult:
    environment = {"MLOPS_DATA_DIR": str(world.folder), "MLOPS_NOW": NOW.isoformat()}
    return materialize_in_process(
        scoring_assets(world.use_case),
        selection=[dg.AssetKey([world.use_case.name, "fairness_audit"])],
        resources={"platform": Platform(environment=environment)},
    )


def test_asset_without_a_champion_is_green_and_its_check_says_why(world: World) -> None:
    done = materialize(world)
    (check,) = done.get_asset_check_evaluations()
    assert done.success
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "not computable: there is no champion"


def test_asset_of_a_breach_is_green_warns_and_shows_the_groups(world: World, work: Context) -> None:
    score(work, 2)
    with OpsDatabase.open(world.settings.database_url) as ops:
        accepted = {name: item.to_dict() for name, item in accept_all(work).items()}
        set_pointer(ops, "shop", "accepted", accepted, run_id="before", now=NOW)
        open_rollout(
            ops,
            "shop",
            1,
            mlflow_run_id="m",
            dagster_run_id="d",
            fingerprint="f",
            policy=RolloutPolicy(),
            state="champion",
            reason="a test",
            waiting_for=None,
            now=NOW,
        )
    done = materialize(world)
    assert done.success
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.blocking) == (False, False)
    (event,) = done.asset_materializations_for_node("shop__fairness_audit")
    assert event.metadata["dagster/row_count"].value == 40
    assert "data:image/png" in str(event.metadata["region"].value)
    file = Path(str(event.metadata["file"].value))
    assert json.loads(file.read_text())["parity"]["above"] == ["region"]
