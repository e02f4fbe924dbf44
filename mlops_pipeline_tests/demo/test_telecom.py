"""The telecom world is what docs/simulation.md says it is."""

from collections.abc import Mapping
from pathlib import Path

import fairlearn.metrics
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from mlops_pipeline.config import load_use_case
from mlops_pipeline.core.fairness.audit import audit_attributes
from mlops_pipeline.core.fairness.disparities import DISPARITIES
from mlops_pipeline.core.fairness.parity import evaluate_parity
from mlops_pipeline.demo.simulated import write_churn
from mlops_pipeline.demo.telecom import (
    DRIFTED_FEATURES_MONTH_25,
    RELATION_FEATURES_MONTH_27,
    TABLES,
    TRUTH,
    simulate_churn,
)
from mlops_pipeline.errors import MlopsError

CONFIG = Path(__file__).parents[2] / "configs" / "churn.yaml"
END = pd.Timestamp("2025-07-01", tz="UTC")
EVENT_TIME = {name: schema.names[1] for name, schema in TABLES.items()}
Frames = Mapping[str, pd.DataFrame]


@pytest.fixture(scope="module")
def world() -> Frames:
    (tables,) = simulate_churn(customers=12_000, seed=3, truth=True)
    return {name: table.to_pandas() for name, table in tables.items()}


@pytest.fixture(scope="module")
def labelled(world: Frames) -> pd.DataFrame:
    """One row per customer and month-end: true probability, label, attributes."""
    rows = (
        world[TRUTH]
        .merge(world["accounts"])
        .merge(world["churn_events"][["customer_id", "churned_at"]], how="left")
    )
    days = (rows["churned_at"] - rows["as_of"]).dt.total_seconds() / 86_400
    rows["label"] = (days >= 0) & (days < 90)
    return rows[rows["as_of"] >= pd.Timestamp("2023-04-01", tz="UTC")]


def stable(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["as_of"] <= pd.Timestamp("2024-10-01", tz="UTC")]


def at(rows: pd.DataFrame, day: str) -> pd.DataFrame:
    return rows[rows["as_of"] == pd.Timestamp(day, tz="UTC")]


def parity_difference(rows: pd.DataFrame, attribute: str) -> float:
    selected = (rows["p_churn_90d"] > 0.2).groupby(rows[attribute]).mean()
    return float(selected.max() - selected.min())


def tables_of(*, seed: int, chunk_customers: int = 500) -> list[dict[str, pa.Table]]:
    chunks = simulate_churn(customers=500, months=6, seed=seed, chunk_customers=chunk_customers)
    return list(chunks)


def test_simulate_churn_same_seed_is_identical() -> None:
    first, second = tables_of(seed=5), tables_of(seed=5)
    assert all(first[0][name].equals(second[0][name]) for name in TABLES)


def test_simulate_churn_other_seed_differs_in_every_table() -> None:
    first, second = tables_of(seed=5), tables_of(seed=6)
    assert not any(first[0][name].equals(second[0][name]) for name in TABLES)


def test_simulate_churn_in_chunks_has_every_customer_once() -> None:
    chunks = tables_of(seed=5, chunk_customers=200)
    ids = np.concatenate([chunk["accounts"]["customer_id"].to_numpy() for chunk in chunks])
    assert len(chunks) == 3
    assert ids.tolist() == list(range(1, 501))


def test_simulate_churn_tables_have_declared_schemas() -> None:
    (chunk,) = tables_of(seed=5)
    assert {name: table.schema for name, table in chunk.items()} == TABLES


@pytest.mark.parametrize("argument", ["customers", "months"])
def test_simulate_churn_zero_names_the_argument(argument: str) -> None:
    sizes = {"customers": 10, "months": 3, argument: 0}
    with pytest.raises(MlopsError, match=f"where: {argument}"):
        next(simulate_churn(seed=1, customers=sizes["customers"], months=sizes["months"]))


def test_world_keys_are_unique(world: Frames) -> None:
    for name, source in load_use_case(CONFIG).sources.items():
        if source.key:
            assert not world[name].duplicated(list(source.key)).any(), name


@pytest.mark.parametrize("table", TABLES)
def test_world_rows_are_available_the_midnight_after_the_event(world: Frames, table: str) -> None:
    rows = world[table]
    expected = rows[EVENT_TIME[table]].dt.floor("D") + pd.Timedelta(days=1)
    assert (rows["loaded_at"] == expected).all()
    assert rows["loaded_at"].max() == END


@pytest.mark.parametrize("table", [name for name in TABLES if name != "accounts"])
def test_world_has_no_rows_before_signup_or_from_churn_on(world: Frames, table: str) -> None:
    lives = world["accounts"][["customer_id", "signup_at"]].merge(
        world["churn_events"][["customer_id", "churned_at"]], how="left"
    )
    rows = (
        world[table]
        .drop(columns="churned_at", errors="ignore")
        .assign(happened=world[table][EVENT_TIME[table]])
    )
    rows = rows.merge(lives, on="customer_id")
    assert (rows["happened"] > rows["signup_at"]).all()
    if table != "churn_events":
        assert (rows["churned_at"].isna() | (rows["happened"] < rows["churned_at"])).all()


def test_world_weekly_rows_are_seven_days_apart(world: Frames) -> None:
    rows = world["weekly_usage"].sort_values(["customer_id", "week_end"])
    steps = rows.groupby("customer_id")["week_end"].diff().dropna()
    assert (steps == pd.Timedelta(days=7)).all()


def test_world_stable_months_positive_rate_is_about_eight_percent(labelled: pd.DataFrame) -> None:
    rates = stable(labelled).groupby("as_of")["label"].mean()
    assert rates.between(0.06, 0.10).all()
    assert 0.07 < rates.mean() < 0.09


def test_truth_bayes_auc_is_about_085(labelled: pd.DataFrame) -> None:
    rows = stable(labelled)
    assert roc_auc_score(rows["label"], rows["p_churn_90d"]) == pytest.approx(0.85, abs=0.015)


@pytest.mark.parametrize("day", ["2023-09-01", "2024-09-01", "2025-03-01"])
def test_truth_is_calibrated_also_after_the_changes(labelled: pd.DataFrame, day: str) -> None:
    rows = at(labelled, day)
    for _, part in rows.groupby(pd.qcut(rows["p_churn_90d"], 4), observed=True):
        expected = part["p_churn_90d"].mean()
        deviation = np.sqrt(expected * (1 - expected) / len(part))
        assert abs(part["label"].mean() - expected) < 4 * deviation


def test_bias_is_in_region_only(labelled: pd.DataFrame) -> None:
    rows = stable(labelled)
    assert parity_difference(rows, "region") > 0.05
    assert parity_difference(rows, "gender") < 0.03
    assert parity_difference(rows, "age_band") < 0.03


def test_audit_finds_the_bias_in_region_and_in_no_other_attribute(labelled: pd.DataFrame) -> None:
    rows = stable(labelled)
    rows = rows[rows["as_of"] >= pd.Timestamp("2024-08-01", tz="UTC")]
    use_case = load_use_case(CONFIG)
    decisions = rows["p_churn_90d"].to_numpy() >= 0.2
    audits = {
        audit.attribute: audit
        for audit in audit_attributes(
            use_case.fairness,
            {name: rows[name].to_numpy() for name in use_case.protected},
            rows["label"],
            decisions,
            scores=rows["p_churn_90d"],
            entities=rows["customer_id"],
        )
    }
    assert tuple(audits) == use_case.audited
    region = audits["region"].demographic_parity_difference
    assert region.low is not None
    assert 0.05 < region.low < (region.value or 0)
    for name in ("gender", "age_band"):
        assert (audits[name].demographic_parity_difference.value or 1) < 0.05
    assert evaluate_parity(tuple(audits.values()), 0.05).above == ("region",)
    _, most = audits["region"].extremes or (None, None)
    assert most is not None
    assert most.group == "south"
    for attribute, audit in audits.items():
        shown = [group.group for group in audit.groups if not group.excluded]
        names = rows[attribute.split(" x ")].agg(" x ".join, axis=1)
        kept = names.isin(shown).to_numpy()
        for name in DISPARITIES:
            expected = getattr(fairlearn.metrics, name)(
                rows["label"][kept], decisions[kept], sensitive_features=names[kept]
            )
            assert getattr(audit, name).value == pytest.approx(expected, abs=1e-12)


def test_month_25_mix_changes(labelled: pd.DataFrame) -> None:
    before, after = at(labelled, "2025-01-01"), at(labelled, "2025-02-01")
    campaign = after["acquisition_channel"].eq("campaign").mean()
    assert campaign - before["acquisition_channel"].eq("campaign").mean() > 0.15
    assert after["plan"].eq("basic").mean() - before["plan"].eq("basic").mean() > 0.10
    assert after["age_band"].eq("18-25").mean() - before["age_band"].eq("18-25").mean() > 0.10


def test_month_27_relation_turns_from_mood_to_price(world: Frames, labelled: pd.DataFrame) -> None:
    bills = world["billing"].merge(world["accounts"][["customer_id", "plan"]])
    bills["index"] = bills["amount"] / bills["plan"].map({"basic": 15, "plus": 30, "premium": 50})
    price = bills.groupby("customer_id")["index"].mean().rename("price")
    use = world["weekly_usage"].set_index("week_end")

    def auc(day: str) -> tuple[float, float]:
        as_of = pd.Timestamp(day, tz="UTC")
        recent = use[(use.index < as_of) & (use.index >= as_of - pd.Timedelta(days=28))]
        voice = recent.groupby("customer_id")["voice_minutes"].mean().rename("voice")
        rows = at(labelled, day).join(price, on="customer_id").join(voice, on="customer_id")
        rows = rows.dropna(subset=["price", "voice"])
        label = rows["label"]
        return roc_auc_score(label, rows["price"]), roc_auc_score(label, -rows["voice"])

    price_before, voice_before = auc("2024-09-01")
    price_after, voice_after = auc("2025-03-01")
    assert price_after > price_before + 0.10
    assert voice_after < voice_before - 0.10


def test_documented_drift_names_features_of_the_config() -> None:
    known = set(load_use_case(CONFIG).features)
    assert known.issuperset(DRIFTED_FEATURES_MONTH_25)
    assert known.issuperset(RELATION_FEATURES_MONTH_27)


def test_write_churn_writes_the_simulated_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    rows = write_churn(
        tmp_path, customers=300, months=4, seed=9, progress=lambda *done: seen.append(done)
    )
    (chunk,) = simulate_churn(customers=300, months=4, seed=9)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.parquet" for name in TABLES}
    assert seen == [(300, 300)]
    for name, table in chunk.items():
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(table)
        assert rows[name] == table.num_rows


def test_write_churn_interrupted_keeps_the_files_before(tmp_path: Path) -> None:
    write_churn(tmp_path, customers=50, months=2, seed=1)
    before = (tmp_path / "accounts.parquet").read_bytes()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_churn(tmp_path, customers=60, months=2, seed=2, progress=interrupt)
    assert (tmp_path / "accounts.parquet").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == len(TABLES)
