"""Feast reads what is exported, and its answers are an oracle for the offline feature table."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.config import UseCase
from mlops_pipeline.lifecycle.context import Context
from mlops_pipeline.lifecycle.features.feast import export_feast
from mlops_pipeline.lifecycle.features.history import get_historical_features
from mlops_pipeline_tests.lifecycle.features.feast_world import (
    FEATURES,
    HISTORY,
    MONTHS,
    PLAN,
    TTL_DAYS,
    by_event,
    exported,
    monthly,
    scan,
)
from mlops_pipeline_tests.lifecycle.features.online.worlds import publish
from mlops_pipeline_tests.worlds import DAY, HOUR, TICK, World, accept_all, advance, on, utc

PAIRS = 400


class Feast:
    """A process that has imported Feast."""

    def __init__(self) -> None:
        reader = Path(__file__).parent / "feast_reader.py"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(reader)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"Feast could not answer {request}"
        return json.loads(line)

    def command(self, folder: Path, *words: str) -> None:
        self.ask(cli=["--chdir", str(folder), *words])

    def close(self) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()


pytestmark = pytest.mark.campaign  # Feast takes its time


@pytest.fixture(scope="module")
def feast() -> Iterator[Feast]:
    started = Feast()
    yield started
    started.close()


def pairs(work: Context, seed: int, path: Path) -> Path:
    """Write random (customer, moment) pairs, many beside or on a row's own moment."""
    dice = random.Random(seed)
    known = work.engine.query(f"SELECT customer, as_of FROM {scan(work)} ORDER BY ALL")
    rows = []
    for number in range(PAIRS):
        customer, at = dice.choice(known)
        at += dice.choice([0 * DAY, TICK, -TICK, TTL_DAYS * DAY, TTL_DAYS * DAY + TICK, HOUR])
        if dice.random() < 0.3:
            customer, at = dice.randrange(10), on(1) + dice.randrange(150 * 24) * HOUR
        rows.append({"pair": number, "customer": customer, "event_timestamp": utc(at)})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def newest_rows(work: Context, path: Path) -> list[tuple[Any, ...]]:
    """The newest row of the offline table at or before each moment, by hand."""
    last = "event_row" if work.use_case.grid.every == "event" else "as_of"
    names = ", ".join(
        f"CASE WHEN p.at - INTERVAL {TTL_DAYS} DAY <= f.as_of THEN f.{name} END"
        if view != "plan"
        else f"f.{name}"
        for view, names in FEATURES.items()
        for name in names
    )
    return work.engine.query(
        f"WITH f AS (SELECT * FROM {scan(work)} "
        f"QUALIFY row_number() OVER (PARTITION BY customer, as_of ORDER BY {last} DESC) = 1), "
        f"p AS (SELECT pair, customer, timezone('UTC', event_timestamp) AS at "
        f"FROM '{path}') SELECT p.pair, {names} FROM p ASOF LEFT JOIN f "
        "ON p.customer = f.customer AND p.at >= f.as_of ORDER BY p.pair"
    )


def references() -> list[str]:
    return [f"{view}:{name}" for view, names in FEATURES.items() for name in names]


def feast_rows(feast: Feast, folder: Path, path: Path) -> list[tuple[Any, ...]]:
    out = path.with_suffix(".answer.parquet")
    feast.ask(history=str(folder), features=references(), pairs=str(path), out=str(out))
    names = ["pair", *(name.split(":")[1] for name in references())]
    table = pq.read_table(out).select(names).sort_by("pair")
    return list(zip(*(table.column(name).to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("use_case", [monthly(), by_event()], ids=["month", "event"])
def test_history_of_feast_equals_the_newest_rows_of_the_offline_table(
    feast: Feast, tmp_path: Path, use_case: UseCase
) -> None:
    repository = exported(use_case, tmp_path).folder
    feast.command(repository, "apply")
    with World(use_case, tmp_path / "data").open() as work:
        path = pairs(work, 2, tmp_path / "pairs.parquet")
        expected = newest_rows(work, path)
    assert feast_rows(feast, repository, path) == expected
    assert len(expected) == PAIRS
    assert 0 < sum(row[1] is None for row in expected) < PAIRS


def test_history_of_feast_equals_ours_at_the_moments_of_the_table(
    feast: Feast, tmp_path: Path
) -> None:
    case = monthly()
    repository = exported(case, tmp_path).folder
    feast.command(repository, "apply")
    world = World(case, tmp_path / "data")
    with world.open() as work:
        publish(world.settings, case, accept_all(work))
        known = work.engine.query(f"SELECT customer, as_of FROM {scan(work)} ORDER BY ALL")
    random.Random(3).shuffle(known)
    asked = [
        {"pair": pair, "customer": customer, "event_timestamp": utc(at)}
        for pair, (customer, at) in enumerate(known)
    ]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(asked), path)
    names = [name for view in FEATURES.values() for name in view]
    rows = pa.table(
        {
            "pair": [row["pair"] for row in asked],
            "customer": [row["customer"] for row in asked],
            "as_of": [row["event_timestamp"] for row in asked],
        }
    )
    ours = get_historical_features(case, rows, names, settings=world.settings)
    expected = [tuple(row[name] for name in ("pair", *names)) for row in ours.to_pylist()]
    assert len(expected) > 20
    assert feast_rows(feast, repository, path) == expected


def test_online_of_feast_answers_the_newest_row_after_another_export(
    feast: Feast, tmp_path: Path
) -> None:
    without_ttl = monthly(views={"history": {**HISTORY, "ttl_days": None}, "plan": PLAN})
    first = exported(without_ttl, tmp_path)
    feast.command(first.folder, "apply")
    feast.command(first.folder, "materialize", first.oldest.isoformat(), first.newest.isoformat())
    with World(without_ttl, tmp_path / "data").open() as work:
        advance(work, utc(on(5)))
        second = export_feast(work, first.folder)
        names = [name for view in FEATURES.values() for name in view]
        rows = work.engine.query(
            f"SELECT customer, {', '.join(names)} "
            f"FROM (FROM {scan(work)} UNION ALL BY NAME SELECT 99 AS customer) "
            "QUALIFY row_number() OVER (PARTITION BY customer ORDER BY as_of DESC) = 1 "
            "ORDER BY customer"
        )
    feast.command(first.folder, "materialize-incremental", second.newest.isoformat())
    answer = feast.ask(
        online=str(first.folder),
        features=references(),
        entities=[{"customer": row[0]} for row in rows],
    )
    assert (first.newest, second.newest) == (utc(MONTHS[-1]), utc(on(5)))
    found = list(zip(*(answer[name] for name in ["customer", *names]), strict=True))
    assert found == rows
