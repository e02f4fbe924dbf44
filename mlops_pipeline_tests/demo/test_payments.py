"""The card world is what docs/simulation.md says it is."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from mlops_pipeline.config import load_use_case
from mlops_pipeline.demo.payments import TABLES, TRUTH, simulate_fraud
from mlops_pipeline.demo.payments_episodes import (
    CATEGORY_SHARES,
    HOURS,
    Transactions,
    customer_rates,
)
from mlops_pipeline.demo.payments_truth import fraud_probability
from mlops_pipeline.demo.payments_world import (
    CATEGORY_LEVEL,
    CHIP,
    FIRST_THEFT,
    KINDS,
    TRIP,
    draw_customers,
)
from mlops_pipeline.demo.simulated import write_fraud, write_world
from mlops_pipeline.demo.telecom_world import Calendar
from mlops_pipeline.errors import MlopsError

CONFIG = Path(__file__).parents[2] / "configs" / "fraud.yaml"
START, END = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2025-07-01", tz="UTC")
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
Frames = Mapping[str, pd.DataFrame]


@pytest.fixture(scope="module")
def world() -> Frames:
    (tables,) = simulate_fraud(customers=2_000, seed=3, truth=True)
    return {name: table.to_pandas() for name, table in tables.items()}


@pytest.fixture(scope="module")
def paid(world: Frames) -> pd.DataFrame:
    """Transactions in order of time, with customer and true probability."""
    rows = world["transactions"].merge(world["customers"].drop(columns="loaded_at"))
    return rows.merge(world[TRUTH]).sort_values(["customer_id", "occurred_at"])


def tables_of(*, seed: int, chunk_customers: int = 200) -> list[dict[str, pa.Table]]:
    return list(simulate_fraud(customers=200, months=4, seed=seed, chunk_customers=chunk_customers))


# which rows


def test_simulate_fraud_same_seed_is_identical() -> None:
    first, second = tables_of(seed=5), tables_of(seed=5)
    assert all(first[0][name].equals(second[0][name]) for name in TABLES)


def test_simulate_fraud_other_seed_differs_but_has_the_same_merchants() -> None:
    (first,), (second,) = tables_of(seed=5), tables_of(seed=6)
    assert {name for name in TABLES if first[name].equals(second[name])} == {"merchants"}


def test_simulate_fraud_in_chunks_has_everything_once() -> None:
    chunks = tables_of(seed=5, chunk_customers=70)
    customers, merchants, transactions = (
        np.concatenate([chunk[table][key].to_numpy() for chunk in chunks])
        for table, key in (
            ("customers", "customer_id"),
            ("merchants", "merchant_id"),
            ("transactions", "transaction_id"),
        )
    )
    assert len(chunks) == 3
    assert customers.tolist() == list(range(1, 201))
    assert merchants.tolist() == list(range(1, 701))
    assert len(set(transactions.tolist())) == len(transactions)


def test_simulate_fraud_tables_have_declared_schemas() -> None:
    (chunk,) = tables_of(seed=5)
    assert {name: table.schema for name, table in chunk.items()} == TABLES


@pytest.mark.parametrize("argument", ["customers", "months"])
def test_simulate_fraud_zero_names_the_argument(argument: str) -> None:
    sizes = {"customers": 10, "months": 3, argument: 0}
    with pytest.raises(MlopsError, match=f"where: {argument}"):
        next(simulate_fraud(seed=1, customers=sizes["customers"], months=sizes["months"]))


def test_world_keys_are_unique(world: Frames) -> None:
    for name, source in load_use_case(CONFIG).sources.items():
        assert not world[name].duplicated(list(source.key)).any(), name


def test_world_has_a_dozen_or_two_payments_a_month(world: Frames) -> None:
    assert 550_000 < len(world["transactions"]) < 680_000


def test_world_pays_after_signup_and_before_the_end(paid: pd.DataFrame) -> None:
    assert (paid["occurred_at"] > paid["signup_at"]).all()
    assert paid["occurred_at"].min() >= START
    assert paid["occurred_at"].max() < END


def test_world_loads_within_minutes_or_hours(paid: pd.DataFrame) -> None:
    seconds = (paid["loaded_at"] - paid["occurred_at"]).dt.total_seconds()
    assert seconds.min() >= 1
    assert seconds.median() < 60
    assert 0.01 < (seconds >= 3_600).mean() < 0.03
    assert seconds.max() < 20 * 3_600


def test_world_columns_agree_with_one_another(world: Frames, paid: pd.DataFrame) -> None:
    assert (paid["hour"] == paid["occurred_at"].dt.hour).all()
    assert (paid["is_foreign"] == (paid["merchant_country"] != paid["home_country"])).all()
    assert (paid["label_known_at"] == paid["occurred_at"] + 30 * DAY).all()
    rows = paid.merge(world["merchants"], on="merchant_id")
    for own, merchants in (("category", "category"), ("country", "country"), ("risk", "risk")):
        assert (rows[f"merchant_{own}"] == rows[merchants]).all(), own


def test_world_reports_are_the_frauds_confirmed_before_the_end(
    world: Frames, paid: pd.DataFrame
) -> None:
    expected = paid[(paid["is_fraud"] == 1) & (paid["label_known_at"] < END)]
    reports = world["fraud_reports"].set_index("transaction_id")
    assert set(reports.index) == set(expected["transaction_id"])
    known = expected.set_index("transaction_id")["label_known_at"]
    assert (reports["confirmed_at"] == known.loc[reports.index]).all()


# what is true


def test_world_half_a_percent_is_fraud_in_bursts(paid: pd.DataFrame) -> None:
    assert 0.004 < paid["is_fraud"].mean() < 0.0065
    stolen = paid[paid["is_fraud"] == 1]
    gap = stolen.groupby("customer_id")["occurred_at"].diff().dropna()
    assert (gap < HOUR).mean() > 0.6


def test_world_no_single_sign_tells(paid: pd.DataFrame) -> None:
    """Every sign is commoner in fraud, and most that show it are still the customer's own."""
    dearness = paid["amount"] / paid.groupby("merchant_category")["amount"].transform("median")
    own = dearness.groupby(paid["customer_id"]).transform("median")
    gap = paid.groupby("customer_id")["occurred_at"].diff()
    signs = {
        "abroad": paid["is_foreign"],
        "night": paid["hour"] < 6,
        "high": dearness > 2 * own,
        "burst": gap < HOUR / 4,
    }
    for name, sign in signs.items():
        assert paid.loc[sign, "is_fraud"].mean() > 2 * paid["is_fraud"].mean(), name
        assert paid.loc[sign, "is_fraud"].mean() < 0.04, name
    every = signs["abroad"] & signs["night"] & signs["high"] & signs["burst"]
    assert paid.loc[every, "is_fraud"].mean() > 0.25


def test_world_gender_and_age_have_no_effect_on_theft(paid: pd.DataFrame) -> None:
    by_customer = paid.groupby("customer_id").agg(
        gender=("gender", "first"), age_band=("age_band", "first"), expected=("p_fraud", "mean")
    )
    for attribute in ("gender", "age_band"):
        groups = by_customer.groupby(attribute)["expected"]
        error: pd.Series = groups.std() / np.sqrt(groups.size())
        apart = (groups.mean() - by_customer["expected"].mean()).abs()
        assert (apart < 4 * error).all(), attribute


def test_truth_bayes_figures_are_those_documented(paid: pd.DataFrame) -> None:
    label, probability = paid["is_fraud"], paid["p_fraud"]
    assert roc_auc_score(label, probability) == pytest.approx(0.995, abs=0.003)
    assert average_precision_score(label, probability) == pytest.approx(0.88, abs=0.03)


def test_truth_is_calibrated(paid: pd.DataFrame) -> None:
    bins = pd.cut(paid["p_fraud"], [0, 0.001, 0.01, 0.1, 0.5, 0.9, 1], include_lowest=True)
    for _, part in paid.groupby(bins, observed=True):
        expected = part["p_fraud"].mean()
        deviation = np.sqrt((part["p_fraud"] * (1 - part["p_fraud"])).sum()) / len(part)
        # the payments of an episode share their kind: their labels are not independent
        assert abs(part["is_fraud"].mean() - expected) < 4 * 2.5 * deviation


def test_truth_of_a_single_payment_is_bayes_rule_by_hand() -> None:
    calendar = Calendar(START.date(), 1)
    people = draw_customers(np.random.default_rng(1), calendar, np.array([1]))
    one = np.array([0])
    amount, hour, electronics, high = 310.0, 3, 5, 2
    made = Transactions(
        episode=one,
        kind=one,
        customer=one,
        day=one + 1,  # a Tuesday
        place=one,
        gap=one,
        second=np.array([(calendar.first_day + 1) * 86_400 + hour * 3_600]),
        category=np.array([electronics]),
        channel=np.array([CHIP]),
        foreign=np.array([True]),
        risk=np.array([high]),
        merchant=one,
        amount=np.array([amount]),
    )
    assert not people.abroad[0, 1]
    weights = []
    for number, kind in enumerate(KINDS):
        usual = people.habit[0] + CATEGORY_LEVEL[electronics] + kind.amount[0]
        usual -= 2.0 if kind.name == "number" else 0.0  # the first is a test
        weights.append(
            (number != TRIP)
            * customer_rates(people, number)[0]
            * HOURS[number, hour]
            * CATEGORY_SHARES[number, people.segment[0], electronics]
            * (1 - kind.online)
            * (1 - kind.contactless)
            * kind.foreign[0]
            * kind.risk[high]
            * norm.pdf(np.log(amount), usual, kind.amount[1])
        )
    expected = sum(weights[FIRST_THEFT:]) / sum(weights)
    assert 0.05 < expected < 0.999
    assert fraud_probability(calendar, people, made) == pytest.approx([expected], rel=1e-9)


# files


def test_write_fraud_writes_the_simulated_rows(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    rows = write_fraud(
        tmp_path, customers=60, months=3, seed=9, progress=lambda *done: seen.append(done)
    )
    (chunk,) = simulate_fraud(customers=60, months=3, seed=9)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.parquet" for name in TABLES}
    assert seen == [(60, 60)]
    for name, table in chunk.items():
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(table)
        assert rows[name] == table.num_rows


def test_write_world_of_several_chunks_writes_them_one_after_the_other(tmp_path: Path) -> None:
    written: list[int] = []
    chunks = tables_of(seed=5, chunk_customers=70)
    rows = write_world(tmp_path, TABLES, iter(chunks), written.append)
    assert written == [1, 2, 3]
    for name in TABLES:
        expected = pa.concat_tables([chunk[name] for chunk in chunks])
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(expected)
        assert rows[name] == expected.num_rows
