import json
from pathlib import Path

import pytest

from mlops_pipeline.config import UseCase, config_hash, load_use_case

CONFIGS = Path(__file__).parents[2] / "configs"
REAL_SETS = ("online_retail", "bank_marketing")
AUDITED = (*REAL_SETS, "fraud")


def _load(name: str) -> UseCase:
    return load_use_case(CONFIGS / f"{name}.yaml")


def _columns_read_by_inputs(use_case: UseCase) -> set[str]:
    read: set[str] = set()
    for view in use_case.views.values():
        for column in view.columns.values():
            for expression in (column.of, column.where):
                if expression is not None:
                    read |= expression.columns
    return read


@pytest.mark.parametrize("name", AUDITED)
def test_use_case_protected_attributes_are_no_inputs(name: str) -> None:
    use_case = _load(name)
    assert use_case.protected
    protected: set[str] = set()
    for attribute in use_case.protected.values():
        protected |= attribute.of.columns
    assert not protected & _columns_read_by_inputs(use_case)
    assert set(use_case.inputs) == set(use_case.features)


@pytest.mark.parametrize("name", AUDITED)
def test_use_case_tries_every_kind_of_candidate(name: str) -> None:
    kinds = {candidate.kind for candidate in _load(name).training.candidates.values()}
    assert kinds == {"lightgbm", "random_forest", "logistic", "dummy"}


@pytest.mark.parametrize("name", REAL_SETS)
def test_use_case_reads_what_fetch_writes(name: str) -> None:
    use_case = _load(name)
    for source in use_case.sources.values():
        assert source.uri.startswith(f"sources/{name}/")
        assert source.static


def test_online_retail_windows_do_not_grow_with_the_data() -> None:
    use_case = _load("online_retail")
    assert 20 <= len(use_case.inputs) <= 40
    for view in use_case.views.values():
        for name, column in view.columns.items():
            assert column.window_days is not None, name
            assert column.window_days + column.offset_days <= 365


def test_online_retail_purchase_is_the_same_in_population_and_label() -> None:
    use_case = _load("online_retail")
    assert use_case.population.where == use_case.label.where
    assert use_case.label.kind == "event_absent"
    assert use_case.label.horizon_days == 90
    assert use_case.sources["invoices"].key == ()


def test_bank_marketing_never_reads_what_is_known_only_after_the_call() -> None:
    use_case = _load("bank_marketing")
    read = _columns_read_by_inputs(use_case)
    assert not read & {"duration", "y", "outcome_known_at", "month_start", "call_id"}
    assert not read & {"age", "marital"}


def test_bank_marketing_reads_every_other_column() -> None:
    use_case = _load("bank_marketing")
    left_out = set(use_case.sources["calls"].columns) - _columns_read_by_inputs(use_case)
    assert left_out == {
        *("call_id", "age", "marital", "duration", "y", "month_start", "outcome_known_at"),
    }


def test_fraud_never_reads_the_label_nor_who_was_paid() -> None:
    use_case = _load("fraud")
    read = _columns_read_by_inputs(use_case)
    assert not read & {"is_fraud", "label_known_at", "transaction_id", "merchant_id", "home_region"}
    assert use_case.label.available_at == "label_known_at"


def test_fraud_views_cover_every_way_of_being_online() -> None:
    views = _load("fraud").views
    assert {name for name, view in views.items() if view.request_time} == {"transaction_features"}
    continuous = {
        name
        for name, view in views.items()
        if view.refresh == "continuous" and not view.request_time
    }
    assert continuous == {"velocity"}
    assert views["velocity"].columns["velocity_last_hour"].window_hours == 1
    assert views["velocity"].columns["velocity_last_day"].window_hours == 24


def test_fraud_history_is_known_only_when_confirmed() -> None:
    use_case = _load("fraud")
    source = use_case.sources[use_case.views["fraud_history"].source]
    assert source.available_at == "confirmed_at"
    assert source.event_time == "occurred_at"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_recorded_configuration_is_read_back_as_it_was(path: Path) -> None:
    use_case = load_use_case(path)
    again = UseCase.model_validate(json.loads(json.dumps(use_case.model_dump(mode="json"))))
    assert again == use_case
    assert again.inputs == use_case.inputs
    assert config_hash(again) == config_hash(use_case)


def test_config_hash_tells_the_order_of_features() -> None:
    use_case = _load("online_retail")
    name, view = next(iter(use_case.views.items()))
    columns = dict(reversed(view.columns.items()))
    views = {**use_case.views, name: view.model_copy(update={"columns": columns})}
    turned = use_case.model_copy(update={"views": views})
    assert turned == use_case  # the same mapping, in another order: other inputs, another model
    assert config_hash(turned) != config_hash(use_case)
