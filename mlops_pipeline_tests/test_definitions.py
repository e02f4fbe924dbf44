"""What the code location offers: names that people and scripts rely on."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.orchestration.build import build_definitions
from mlops_pipeline.stores.settings import PACKAGE_PARENT

CONFIGS = PACKAGE_PARENT / "configs"
USE_CASES = ("bank_marketing", "churn", "fraud", "online_retail")
ASSETS = {  # name: (group, kinds, comes after)
    "raw_data": ("data", {"delta", "duckdb"}, set()),
    "data_docs": ("data", {"greatexpectations"}, {"raw_data"}),
    "validated_data": ("data", {"delta", "duckdb", "greatexpectations"}, {"raw_data"}),
    "features": ("data", {"delta", "duckdb", "ibis"}, {"validated_data"}),
    "online_features": ("data", {"redis", "sqlite"}, {"features"}),
    "trained_model": ("model", {"lightgbm", "mlflow", "scikitlearn"}, {"features"}),
    "evaluation_report": ("model", {"evidently", "fairlearn", "shap"}, {"trained_model"}),
    "registry_entry": ("release", {"mlflow"}, {"evaluation_report"}),
    "deployment": ("release", {"sqlalchemy"}, {"registry_entry"}),
    "batch_predictions": ("serving", {"delta", "lightgbm"}, {"deployment", "features"}),
    "prediction_archive": ("serving", {"delta"}, {"batch_predictions"}),
    "rollout_evidence": ("serving", {"scipy"}, {"deployment", "validated_data"}),
    "fairness_audit": ("monitoring", {"fairlearn"}, {"batch_predictions"}),
}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(config_dir=CONFIGS)


@pytest.fixture(scope="module")
def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_asset_keys(specs: dict[str, dg.AssetSpec]) -> None:
    assert set(specs) == {f"{case}/{name}" for case in USE_CASES for name in ASSETS}


@pytest.mark.parametrize("case", USE_CASES)
@pytest.mark.parametrize("name", ASSETS)
def test_asset_reads_like_documentation(
    specs: dict[str, dg.AssetSpec], case: str, name: str
) -> None:
    spec, (group, kinds, after) = specs[f"{case}/{name}"], ASSETS[name]
    assert spec.group_name == f"{case}_{group}"
    assert spec.kinds == kinds
    assert {dep.asset_key.path[-1] for dep in spec.deps} == after
    assert len(spec.description or "") > 60
    assert len(list(spec.owners)) == 1
    assert spec.tags["use_case"] == case
    assert spec.tags["stage"] == group
    link = spec.metadata["docs"]
    assert isinstance(link, dg.PathMetadataValue)
    page, anchor = str(link.value).split("#")
    assert anchor == name
    assert f"## {name}\n" in (PACKAGE_PARENT / page).read_text()


def test_job_names(defs: dg.Definitions) -> None:
    jobs = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    kinds = ("lifecycle", "materialize", "batch_score", "archive", "ingest", "rollout",
             "fairness_audit", "card_review")  # fmt: skip
    assert jobs == {f"{case}_{kind}" for case in USE_CASES for kind in kinds}


def test_lifecycle_runs_everything_but_scoring_and_its_audit(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("churn_lifecycle")
    keys = {key.path[-1] for key in job.asset_layer.executable_asset_keys}
    assert keys == set(ASSETS) - {
        "batch_predictions", "prediction_archive", "rollout_evidence", "fairness_audit"
    }  # fmt: skip


def test_materialize_runs_online_features_only(defs: dg.Definitions) -> None:
    job = defs.resolve_job_def("churn_materialize")
    keys = {key.path[-1] for key in job.asset_layer.executable_asset_keys}
    assert keys == {"online_features"}


def test_sensors_and_what_is_on_by_default(defs: dg.Definitions) -> None:
    sensors = {sensor.name: sensor.default_status.value for sensor in defs.sensors or ()}
    assert sensors == {
        "calendar": "STOPPED",
        "run_failures": "RUNNING",
        **{
            f"{case}_{kind}": "STOPPED" for case in USE_CASES for kind in ("new_labels", "new_data")
        },
    }


def test_new_data_sensor_is_on_where_the_configuration_says_so(tmp_path: Path) -> None:
    document = yaml.safe_load((CONFIGS / "churn.yaml").read_text())
    document["retraining"] = {**document["retraining"], "on_new_data": True}
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    sensors = {item.name: item for item in build_definitions(config_dir=tmp_path).sensors or ()}
    assert sensors["churn_new_data"].default_status is dg.DefaultSensorStatus.RUNNING


def test_schedules(defs: dg.Definitions) -> None:
    found = {
        schedule.name: schedule.cron_schedule
        for schedule in defs.schedules or ()
        if isinstance(schedule, dg.ScheduleDefinition)
    }
    assert found == {
        **{f"{case}_monthly_retrain": "0 3 5 * *" for case in USE_CASES},
        **{f"{case}_online_features": "30 * * * *" for case in USE_CASES},
        **{f"{case}_archive": "0 1 * * *" for case in USE_CASES},
        **{f"{case}_ingest": "0 2 * * *" for case in USE_CASES},
        **{f"{case}_rollout": "45 * * * *" for case in USE_CASES},
        **{f"{case}_fairness_audit": "0 5 6 * *" for case in USE_CASES},
        **{f"{case}_model_card_review": "0 6 * * 1" for case in USE_CASES},
    }


def test_use_case_without_protected_attribute_has_no_fairness_audit(tmp_path: Path) -> None:
    document = yaml.safe_load((CONFIGS / "bank_marketing.yaml").read_text())
    del document["protected"]
    document["evaluation"]["slices"] = []
    document["gates"] = [item for item in document["gates"] if item["rule"] == "metric"]
    (tmp_path / "bank_marketing.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    defs = build_definitions(config_dir=tmp_path)
    named = [spec.key.path[-1] for spec in defs.resolve_all_asset_specs()]
    named += [job.name for job in defs.resolve_all_job_defs()]
    named += [item.name for item in defs.schedules or () if isinstance(item, dg.ScheduleDefinition)]
    assert "batch_predictions" in named
    assert not [name for name in named if "fairness" in name]


def test_asset_checks_and_which_block(defs: dg.Definitions) -> None:
    found: dict[dg.AssetCheckKey, bool] = {}
    for asset in defs.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            found |= {spec.key: spec.blocking for spec in asset.check_specs}
    sources = {
        case: yaml.safe_load((CONFIGS / f"{case}.yaml").read_text())["sources"]
        for case in USE_CASES
    }
    rules = {
        dg.AssetCheckKey(dg.AssetKey([case, "validated_data"]), f"{name}_rules"): True
        for case in USE_CASES
        for name in sources[case]
    }
    leaks = {
        dg.AssetCheckKey(dg.AssetKey([case, "features"]), name): name == "no_leak"
        for case in USE_CASES
        for name in ("no_leak", "precision_kept")
    }
    kept = {
        dg.AssetCheckKey(dg.AssetKey([case, "raw_data"]), "no_row_left_out"): False
        for case in USE_CASES
    }
    audits = {
        dg.AssetCheckKey(dg.AssetKey([case, "fairness_audit"]), "fairness_within_limits"): False
        for case in USE_CASES
    }
    arrivals = {
        dg.AssetCheckKey(dg.AssetKey([case, "batch_predictions"]), "inputs_arrive"): False
        for case in USE_CASES
    }
    assert found == {**rules, **leaks, **kept, **audits, **arrivals}


def test_build_definitions_returns_fresh_objects(defs: dg.Definitions) -> None:
    again = build_definitions(config_dir=CONFIGS)
    assert again is not defs
    assert set(map(id, again.sensors or ())).isdisjoint(set(map(id, defs.sensors or ())))
    dg.Definitions.validate_loadable(again)


def test_resource_overrides_replace_resources() -> None:
    other = object()
    resources = build_definitions(
        config_dir=CONFIGS, resource_overrides={"platform": other}
    ).resources
    assert resources is not None
    assert resources["platform"] is other


def test_broken_configuration_names_file_and_key(tmp_path: Path) -> None:
    document = yaml.safe_load((CONFIGS / "churn.yaml").read_text())
    document["trainig"] = document.pop("training")
    (tmp_path / "churn.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        build_definitions(config_dir=tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "churn.yaml") in message
    assert "train" in message


def test_folder_without_a_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no use case"):
        build_definitions(config_dir=tmp_path)
