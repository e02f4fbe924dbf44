import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from mlops_pipeline.errors import DataError
from mlops_pipeline.stores.pages import DRIFTED, DriftSummary, write_drift_report

ROWS = 400


def frame(shift: float, seed: int, rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "moved": rng.normal(shift, 1, rows),
            "still": rng.normal(0, 1, rows),
            "holes": np.where(rng.random(rows) < 0.3, np.nan, rng.random(rows)),
            "endless": np.where(rng.random(rows) < 0.1, np.inf, rng.random(rows)),
            "plan": rng.choice(["basic", "plus"], rows, p=[0.5 + shift / 4, 0.5 - shift / 4]),
            "gone": rng.choice(np.array(["a", "b", None], dtype=object), rows),
            "flag": rng.random(rows) < 0.5,
            "never": np.full(rows, np.nan),
        }
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DriftSummary]:
    path = tmp_path_factory.mktemp("drift") / "deep" / "evidently.html"
    reference = frame(0.0, 1).assign(old=1.0)
    return path, write_drift_report(path, reference, frame(1.0, 2), seed=7)


def test_moved_columns_come_first_and_count_as_drifted(written: tuple[Path, DriftSummary]) -> None:
    _, summary = written
    assert {name for name, score in summary.scores.items() if score >= DRIFTED} == {"moved", "plan"}
    assert next(iter(summary.scores)) == "moved"
    assert summary.scores["still"] < 0.1


def test_scores_are_the_distances_they_are_said_to_be(written: tuple[Path, DriftSummary]) -> None:
    _, summary = written
    first, second = frame(0.0, 1), frame(1.0, 2)
    distance = wasserstein_distance(first["moved"], second["moved"]) / np.std(first["moved"])
    assert summary.scores["moved"] == pytest.approx(distance, rel=1e-2)
    shares = [one["plan"].value_counts(normalize=True).sort_index() for one in (first, second)]
    expected = jensenshannon(*shares)
    assert summary.scores["plan"] == pytest.approx(expected, rel=1e-6)


def test_columns_that_cannot_be_compared_are_named(written: tuple[Path, DriftSummary]) -> None:
    _, summary = written
    assert summary.skipped == {
        "never": "no value in the reference frame",
        "old": "only in the reference frame",
    }


def test_page_loads_nothing_from_elsewhere(written: tuple[Path, DriftSummary]) -> None:
    path, _ = written
    page = path.read_text(encoding="utf-8")
    assert "moved" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]{0,300}(src|href)=[\"']?(https?:)?//", page)
    assert not re.search(r"(@import|url\()\s*[\"']?https?://", page)


def test_telemetry_is_off(written: tuple[Path, DriftSummary]) -> None:
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_large_frames_are_sampled_the_same_way_each_time(tmp_path: Path) -> None:
    first, second = frame(0, 3)[["moved"]], frame(1, 4)[["moved"]]
    runs = [
        write_drift_report(tmp_path / "page.html", first, second, max_rows=100, seed=5)
        for _ in range(2)
    ]
    assert (runs[0].rows_reference, runs[0].rows_current) == (100, 100)
    assert runs[0] == runs[1]


def test_same_frame_has_no_drift(tmp_path: Path) -> None:
    same = frame(0, 3)[["moved", "plan"]]
    summary = write_drift_report(tmp_path / "page.html", same, same, seed=5)
    assert summary.scores == {"moved": 0.0, "plan": 0.0}


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    some = frame(0, 3)
    with pytest.raises(DataError, match="empty frame"):
        write_drift_report(tmp_path / "page.html", some, some.head(0), seed=5)
    with pytest.raises(DataError, match="never: no value"):
        write_drift_report(tmp_path / "page.html", some[["never"]], some[["never"]], seed=5)
    assert not (tmp_path / "page.html").exists()
