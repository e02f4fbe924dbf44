"""The catalogue: what is defined, who uses it, what nobody uses, and what must not go."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.config.modelling import RolloutPolicy
from mlops_pipeline.core.documents.records import plain
from mlops_pipeline.core.rollout.records import OpeningState
from mlops_pipeline.errors import ConfigError, NotFoundError
from mlops_pipeline.lifecycle.bookkeeping import record_feature_use, set_pointer
from mlops_pipeline.lifecycle.features.catalogue import (
    FeatureEntry,
    ModelInputs,
    catalog,
    model_inputs,
    refuse_deleted_features,
    unused_features,
)
from mlops_pipeline.lifecycle.rollouts import open_rollout
from mlops_pipeline.stores.lake.tables import Lake
from mlops_pipeline.stores.ops import OpsDatabase
from mlops_pipeline.stores.settings import PACKAGE_PARENT, Settings
from mlops_pipeline_tests.lifecycle.rollout_steps import reject
from mlops_pipeline_tests.worlds import PLANS, VISITS, shop

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
COLUMNS: dict[str, Any] = {
    "visits": {"aggregate": "count", "dtype": "int64", "description": "How often."},
    "spent": {"aggregate": "sum", "of": "amount", "deprecated": True},
}
VIEWS: dict[str, Any] = {
    "history": {
        "source": "visits",
        "owner": "shop-data",
        "freshness_days": 7,
        "columns": COLUMNS,
    },
    "plan": {
        "source": "plans",
        "freshness_days": 3,
        "online": False,
        "columns": {"tier": {"aggregate": "last", "of": "tier", "dtype": "string"}},
    },
}
DERIVED = {
    "mean_spent": {"expression": "spent / visits", "description": "Value of a visit."},
    "is_gold": {"expression": "case when tier = 'gold' then mean_spent end"},
}


def case_of(**sections: Any) -> UseCase:
    sources = {"visits": VISITS, "plans": PLANS}
    return shop(**{"sources": sources, "views": VIEWS, "derived": DERIVED, **sections})


def release(settings: Settings, version: int, inputs: Sequence[str]) -> None:
    """Write the metadata document of a version, as far as the catalogue reads it."""
    folder = Lake(settings.lake_uri).documents_folder(case_of().name, f"fingerprint-{version}")
    folder.mkdir(parents=True)
    document = {"signature": {"inputs": [{"name": name, "type": "number"} for name in inputs]}}
    (folder / "metadata.json").write_text(json.dumps(document))


def open_version(ops: OpsDatabase, version: int, state: OpeningState = "champion") -> None:
    open_rollout(
        ops,
        "shop",
        version,
        mlflow_run_id="mlflow",
        dagster_run_id="dagster",
        fingerprint=f"fingerprint-{version}",
        policy=RolloutPolicy(),
        state=state,
        reason="gate passed",
        waiting_for=None,
        now=NOON,
    )


def entry_of(entries: Sequence[FeatureEntry], name: str) -> FeatureEntry:
    (found,) = [entry for entry in entries if entry.name == f"customer:{name}"]
    return found


# what is defined


def test_catalog_of_a_configuration_lists_every_feature(settings: Settings) -> None:
    assert catalog(case_of(), settings) == [
        FeatureEntry(
            name="customer:visits",
            type="int64",
            owner="shop-data",
            description="How often.",
            view="history",
            refresh="month",
            freshness_days=7,
            online=True,
            deprecated=False,
        ),
        FeatureEntry(
            name="customer:spent",
            type="float64",
            owner="shop-data",
            description="",
            view="history",
            refresh="month",
            freshness_days=7,
            online=True,
            deprecated=True,
        ),
        FeatureEntry(
            name="customer:tier",
            type="string",
            owner="tests",
            description="",
            view="plan",
            refresh="month",
            freshness_days=3,
            online=False,
            deprecated=False,
        ),
        FeatureEntry(
            name="customer:mean_spent",
            type="float64",
            owner="tests",
            description="Value of a visit.",
            view=None,
            refresh="derived",
            freshness_days=7,
            online=True,
            deprecated=False,
        ),
        FeatureEntry(
            name="customer:is_gold",
            type="float64",
            owner="tests",
            description="",
            view=None,
            refresh="derived",
            freshness_days=3,  # of its oldest input
            online=False,
            deprecated=False,
        ),
    ]


def test_catalog_of_an_event_grid_says_how_views_are_refreshed(settings: Settings) -> None:
    views = {
        "daily": {"source": "visits", "refresh": "daily", "columns": {"a": {"aggregate": "count"}}},
        "now": {"source": "visits", "columns": {"b": {"aggregate": "count"}}},
        "asked": {"source": "visits", "request_time": True, "columns": {"c": {"of": "amount"}}},
    }
    found = catalog(case_of(grid={"every": "event"}, views=views, derived={}), settings)
    assert [entry.refresh for entry in found] == ["daily", "continuous", "request_time"]


# who uses it


def test_catalog_lists_live_models_apart_from_all_others(
    settings: Settings, ops: OpsDatabase
) -> None:
    for version, inputs in enumerate([["spent"], ["spent", "visits"], ["visits"], ["tier"]], 1):
        release(settings, version, inputs)
    for version in (1, 2, 3):
        open_version(ops, version)
    open_version(ops, 4, "awaiting_approval")
    found = catalog(case_of(), settings)
    users = {entry.name: (entry.live_models, entry.other_models) for entry in found}
    assert users == {
        "customer:visits": (("3 (champion)", "2 (previous)"), ()),
        "customer:spent": (("2 (previous)",), ("1 (archived)",)),
        "customer:tier": (("4 (challenger)",), ()),
        "customer:mean_spent": ((), ()),
        "customer:is_gold": ((), ()),
    }


def test_version_that_is_registered_and_not_deployed_is_live(
    settings: Settings, ops: OpsDatabase
) -> None:
    release(settings, 5, ["visits"])
    entry = {"version": 5, "fingerprint": "fingerprint-5", "needs_review": False}
    set_pointer(ops, "shop", "registry", entry, run_id="run", now=NOON)
    (found,) = model_inputs(ops, Lake(settings.lake_uri), case_of())
    assert found == ModelInputs(5, "challenger", True, ("visits",))
    open_version(ops, 5, "awaiting_approval")
    reject(ops, "shop", 5, by="ada", reason="no", now=NOON)
    (found,) = model_inputs(ops, Lake(settings.lake_uri), case_of())
    assert found == ModelInputs(5, "rejected", False, ("visits",))


def test_past_version_whose_documents_were_removed_is_left_out(
    settings: Settings, ops: OpsDatabase
) -> None:
    for version in (2, 3):
        release(settings, version, ["visits"])
    for version in (1, 2, 3):
        open_version(ops, version)
    found = model_inputs(ops, Lake(settings.lake_uri), case_of())
    assert [item.version for item in found] == [3, 2]


def test_champion_whose_documents_are_gone_is_an_error(
    settings: Settings, ops: OpsDatabase
) -> None:
    open_version(ops, 1)
    with pytest.raises(NotFoundError, match=r"version 1 of shop \(champion\)") as caught:
        model_inputs(ops, Lake(settings.lake_uri), case_of())
    assert str(caught.value.where).endswith("fingerprint-1-release/metadata.json")


def test_catalog_says_when_a_feature_was_computed_first_and_read_last(
    settings: Settings, ops: OpsDatabase
) -> None:
    for days, reader in enumerate(("computation", "training", "online", "batch_scoring")):
        moment = NOON + timedelta(days=days)
        record_feature_use(ops, "shop", ["visits"], reader, now=moment)  # type: ignore[arg-type] # the loop loses the literal
    record_feature_use(ops, "shop", ["visits", "tier"], "computation", now=NOON + timedelta(days=9))
    found = catalog(case_of(), settings)
    visits, tier, spent = (entry_of(found, name) for name in ("visits", "tier", "spent"))
    assert (visits.computed_since, visits.last_used_at) == (NOON, NOON + timedelta(days=3))
    assert (tier.computed_since, tier.last_used_at) == (NOON + timedelta(days=9), None)
    assert (spent.computed_since, spent.last_used_at) == (None, None)


def test_entry_is_plain_json(settings: Settings, ops: OpsDatabase) -> None:
    record_feature_use(ops, "shop", ["visits"], "training", now=NOON)
    document = plain(catalog(case_of(), settings))
    first = json.loads(json.dumps(document))[0]
    assert first["name"] == "customer:visits"
    assert first["last_used_at"] == "2025-06-01T12:00:00+00:00"
    assert first["live_models"] == []


# what nobody uses


@pytest.fixture
def entry(settings: Settings) -> FeatureEntry:
    return entry_of(catalog(case_of(), settings), "visits")


@pytest.mark.parametrize(("days", "is_unused"), [(0, False), (90, False), (91, True), (400, True)])
@pytest.mark.parametrize("moment", ["last_used_at", "computed_since"])
def test_feature_that_nobody_read_for_more_than_90_days_is_unused(
    entry: FeatureEntry, moment: str, days: int, *, is_unused: bool
) -> None:
    given = replace(entry, **{moment: NOON - timedelta(days=days)})  # type: ignore[arg-type] # by name
    assert bool(unused_features([given], NOON)) is is_unused


def test_feature_that_was_read_lately_is_used_however_old(entry: FeatureEntry) -> None:
    old, new = NOON - timedelta(days=800), NOON - timedelta(days=1)
    given = replace(entry, computed_since=old, last_used_at=new)
    assert unused_features([given], NOON) == []
    assert unused_features([given], NOON, days=0) == [given]


def test_feature_that_is_live_deprecated_or_never_computed_is_not_reported(
    entry: FeatureEntry,
) -> None:
    old = replace(entry, last_used_at=NOON - timedelta(days=800))
    live = replace(old, live_models=("3 (champion)",))
    given = [live, replace(old, deprecated=True), entry]
    assert unused_features(given, NOON) == []
    assert unused_features([replace(old, other_models=("1 (archived)",))], NOON)


# what must not go


def test_configuration_with_every_input_of_live_models_is_accepted() -> None:
    protected = {"region": {"source": "plans", "of": "region"}}
    models = [
        ModelInputs(2, "champion", True, ("visits", "spent", "mean_spent", "region")),
        ModelInputs(1, "archived", False, ("gone",)),
    ]
    refuse_deleted_features(case_of(protected=protected), models)


def test_deleted_input_of_live_models_names_feature_model_version_and_way_out() -> None:
    models = [
        ModelInputs(3, "champion", True, ("visits", "orders")),
        ModelInputs(2, "previous", True, ("orders", "clicks")),
    ]
    with pytest.raises(ConfigError) as caught:
        refuse_deleted_features(case_of(), models)
    error = caught.value
    assert error.where == "configs/shop.yaml"
    assert error.expected == "customer:orders, customer:clicks"
    assert error.found == (
        "orders is an input of shop version 3 (champion) and 2 (previous); "
        "clicks is an input of shop version 2 (previous)"
    )
    assert "deprecated: true" in str(error.way_out)


def test_reading_the_inputs_of_a_live_model_does_not_import_mlflow(
    settings: Settings, ops: OpsDatabase
) -> None:
    release(settings, 1, ["visits"])
    open_version(ops, 1)
    program = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from mlops_pipeline.config import UseCase\n"
        "from mlops_pipeline.lifecycle.features.catalogue import catalog\n"
        "from mlops_pipeline.stores.settings import Settings\n"
        "use_case = UseCase.model_validate_json(sys.stdin.read())\n"
        f"settings = Settings.from_environment({{'MLOPS_DATA_DIR': {str(settings.data_dir)!r}}})\n"
        "print(catalog(use_case, settings)[0].live_models)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=PACKAGE_PARENT,
        input=case_of().model_dump_json(),
    )
    assert done.stdout == "('1 (champion)',)\n", done.stderr
