from pathlib import Path

import pytest
import yaml

from mlops_pipeline.config import load_use_case
from mlops_pipeline.errors import ConfigError, ExpressionError, MlopsError
from mlops_pipeline.stores.settings import PACKAGE_PARENT


def write_config(folder: Path, change: tuple[str, ...], value: object) -> Path:
    document = yaml.safe_load((PACKAGE_PARENT / "configs" / "churn.yaml").read_text("utf-8"))
    section = document
    for key in change[:-1]:
        section = section[key]
    section[change[-1]] = value
    path = folder / "churn.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "key", "near"),
    [
        (("entitty",), "entitty", "entity"),
        (("sources", "accounts", "lateness_day"), "sources.accounts.lateness_day", "lateness_days"),
        (("training", "calibraton"), "training.calibraton", "calibration"),
        (
            ("views", "account", "columns", "plan", "agregate"),
            "views.account.columns.plan.agregate",
            "aggregate",
        ),
    ],
)
def test_typo_in_the_configuration_names_file_key_and_nearest_key(
    tmp_path: Path, change: tuple[str, ...], key: str, near: str
) -> None:
    path = write_config(tmp_path, change, "x")
    with pytest.raises(ConfigError) as caught:
        load_use_case(path)
    assert caught.value.where == f"{path}: {key}"
    assert caught.value.expected == "no such key"
    assert caught.value.way_out == f"did you mean {near!r}?"


def test_configuration_that_reads_an_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    path = write_config(tmp_path, ("views", "account", "columns", "plan", "of"), "plann")
    with pytest.raises(ConfigError, match=r"'plann' is no column .* did you mean 'plan'\?"):
        load_use_case(path)


def test_configuration_with_a_wrong_expression_names_the_position(tmp_path: Path) -> None:
    path = write_config(tmp_path, ("population", "where"), "plan = ")
    with pytest.raises(MlopsError, match="does not parse at character 8"):
        load_use_case(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("population", "where"), "plan = "),
        (("views", "account", "columns", "plan", "of"), "round(plan)"),
        (("sources", "accounts", "rules"), "plan ; 1"),
    ],
)
def test_configuration_with_a_wrong_expression_names_file_and_key(
    tmp_path: Path, change: tuple[str, ...], text: str
) -> None:
    is_rule = change[-1] == "rules"
    value = [{"rule": "check", "name": "it", "expression": text}] if is_rule else text
    path = write_config(tmp_path, change, value)
    with pytest.raises(ExpressionError) as caught:
        load_use_case(path)
    key = ".".join([*change, *(["0", "check", "expression"] if is_rule else [])])
    assert caught.value.where == f"{path}: {key}: {text}"
    assert caught.value.found


def test_configuration_with_two_problems_says_how_many_more(tmp_path: Path) -> None:
    path = write_config(tmp_path, ("population",), {"source": "accounts", "where": "(", "wher": 1})
    with pytest.raises(ExpressionError, match=r"at character 2 \(1 more problems in this file\)"):
        load_use_case(path)


def test_typo_in_a_rule_of_the_gate_offers_the_keys_of_that_rule(tmp_path: Path) -> None:
    rule = {"rule": "metric", "metric": "roc_auc", "at_leest": 0.7}
    path = write_config(tmp_path, ("gates",), [rule])
    with pytest.raises(ConfigError) as caught:
        load_use_case(path)
    assert caught.value.where == f"{path}: gates.0.metric.at_leest"
    assert caught.value.way_out == "did you mean 'at_least'?"


def test_expected_direction_of_a_text_is_refused(tmp_path: Path) -> None:
    where = ("views", "account", "columns", "plan", "expected")
    path = write_config(tmp_path, where, "increasing")
    with pytest.raises(ConfigError, match=r"views.account.columns.plan.expected: .* is a text"):
        load_use_case(path)


def test_monotone_without_any_direction_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load(
        (PACKAGE_PARENT / "configs" / "online_retail.yaml").read_text("utf-8")
    )
    document["training"]["candidates"] = {"boosted": {"kind": "lightgbm", "monotone": True}}
    path = tmp_path / "online_retail.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"boosted\.monotone: no feature declares"):
        load_use_case(path)
