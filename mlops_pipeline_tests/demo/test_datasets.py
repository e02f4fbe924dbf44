import gzip
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from urllib.error import URLError

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.demo import datasets
from mlops_pipeline.demo.datasets import (
    CALL_MONTHS,
    DATASETS,
    Dataset,
    DatasetFile,
    FetchResult,
    call_months,
    fetch_dataset,
)
from mlops_pipeline.errors import NotFoundError, SourceError

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_real_files = pytest.mark.skipif(
    not (REAL / "online_retail.parquet").is_file(), reason=f"no real data sets in {REAL}"
)
DOCUMENTED_ROWS: dict[str, Mapping[str, int]] = {
    "online_retail": {"invoices": 1_044_847},
    "bank_marketing": {"calls": 41_188},
    "adult": {"train": 32_561, "test": 16_281},
    "telco_churn": {"customers": 7_043},
}
DOCUMENTED_MONTHS = [datasets.MONTHS[month - 1] for _, month in CALL_MONTHS]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, FetchResult]:
    folder = tmp_path_factory.mktemp("data")
    return {name: fetch_dataset(name, folder, from_folder=REAL) for name in DATASETS}


def _utc(year: int, month: int) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC)


def _zipped(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, content)
    return buffer.getvalue()


def _tiny(monkeypatch: pytest.MonkeyPatch, text: bytes, **changes: object) -> Dataset:
    """Register a one-column set `tiny` whose only file holds `text`."""
    file = DatasetFile(
        name="tiny.csv.gz",
        sha256=hashlib.sha256(gzip.compress(text, mtime=0)).hexdigest(),
        url="https://publisher.example/tiny.zip",
        content_sha256=hashlib.sha256(text).hexdigest(),
    )
    tiny = Dataset(
        name="tiny",
        files=(replace(file, **changes),),  # type: ignore[arg-type] # a test names the fields
        licence="none",
        source="a test",
        description="Three rows.",
        read=lambda contents: {"rows": pa.table({"a": contents[0].decode().split()})},
    )
    monkeypatch.setattr(datasets, "DATASETS", MappingProxyType({"tiny": tiny}))
    return tiny


def _answer(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    def answer(url: str, timeout: float) -> io.BytesIO:
        assert url.startswith("https://")
        assert timeout > 0
        return io.BytesIO(content)

    monkeypatch.setattr(datasets, "urlopen", answer)


@needs_real_files
@pytest.mark.parametrize("name", DOCUMENTED_ROWS)
def test_fetch_real_files_writes_the_documented_rows(
    fetched: Mapping[str, FetchResult], name: str
) -> None:
    result = fetched[name]
    assert result.rows == DOCUMENTED_ROWS[name]
    assert result.path.parts[-2:] == ("sources", name)
    for path, (table, rows) in zip(result.files, DOCUMENTED_ROWS[name].items(), strict=True):
        assert path == result.path / f"{table}.parquet"
        assert pq.read_metadata(path).num_rows == rows


@needs_real_files
def test_fetch_online_retail_keeps_guests_returns_and_utc_times(
    fetched: Mapping[str, FetchResult],
) -> None:
    table = pq.read_table(fetched["online_retail"].files[0])
    assert table.schema.field("invoice_date").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("customer_id").type == pa.int64()
    assert table["customer_id"].null_count == 235_287
    assert pc.min(table["quantity"]).as_py() < 0
    bounds = pc.min_max(table["invoice_date"]).as_py()
    assert bounds["min"] == datetime(2009, 12, 1, 7, 45, tzinfo=UTC)
    assert bounds["max"] == datetime(2011, 12, 9, 12, 50, tzinfo=UTC)


@needs_real_files
def test_fetch_bank_marketing_dates_the_26_months(fetched: Mapping[str, FetchResult]) -> None:
    calls = pq.read_table(fetched["bank_marketing"].files[0])
    starts = calls["month_start"].to_pylist()
    assert list(dict.fromkeys(starts)) == [_utc(year, month) for year, month in CALL_MONTHS]
    assert starts == sorted(starts)
    assert calls["call_id"].to_pylist() == list(range(41_188))
    assert {datasets.MONTHS[start.month - 1] for start in starts} == set(calls["month"].to_pylist())
    assert calls["outcome_known_at"][-1].as_py() == _utc(2010, 12)
    assert set(calls["y"].to_pylist()) == {"yes", "no"}
    assert {"duration", "emp_var_rate", "nr_employed"} <= set(calls.column_names)
    assert pc.max(calls["pdays"]).as_py() == 999


@needs_real_files
def test_fetch_adult_cleans_labels_and_unknowns(fetched: Mapping[str, FetchResult]) -> None:
    train, test = (pq.read_table(path) for path in fetched["adult"].files)
    assert train.schema == test.schema
    for table in (train, test):
        assert set(table["income"].to_pylist()) == {"<=50K", ">50K"}
        assert "?" not in table["workclass"].to_pylist()
    assert train["workclass"].null_count == 1_836
    assert train["sex"].to_pylist()[:5] == ["Male", "Male", "Male", "Male", "Female"]


@needs_real_files
def test_fetch_telco_churn_makes_blank_charges_missing(
    fetched: Mapping[str, FetchResult],
) -> None:
    customers = pq.read_table(fetched["telco_churn"].files[0])
    assert customers.schema.field("total_charges").type == pa.float64()
    assert customers["total_charges"].null_count == 11
    assert {"customer_id", "senior_citizen", "streaming_tv", "churn"} <= set(customers.column_names)


@needs_real_files
def test_fetch_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = fetch_dataset("telco_churn", tmp_path, from_folder=REAL)
    before = first.files[0].read_bytes()
    second = fetch_dataset("telco_churn", tmp_path, from_folder=REAL)
    assert second == first
    assert second.files[0].read_bytes() == before
    assert list(first.path.iterdir()) == list(first.files)


@needs_real_files
def test_fetch_tells_progress_by_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch_dataset(
        "adult", tmp_path, from_folder=REAL, progress=lambda *step: seen.append((step[0], step[1]))
    )
    assert seen == [(1, 2), (2, 2)]


def test_fetch_changed_file_is_refused_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "telco_churn.csv.gz").write_bytes(gzip.compress(b"customerID\n1\n", mtime=0))
    with pytest.raises(SourceError, match="sha256 differs") as caught:
        fetch_dataset("telco_churn", tmp_path / "data", from_folder=tmp_path)
    assert caught.value.expected == DATASETS["telco_churn"].files[0].sha256
    assert caught.value.found is not None
    assert len(caught.value.found) == 64
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_fetch_missing_file_names_it(tmp_path: Path, folder: str) -> None:
    with pytest.raises(SourceError, match=r"adult\.data\.gz") as caught:
        fetch_dataset("adult", tmp_path / "data", from_folder=tmp_path / folder)
    assert "--from DIR" in str(caught.value)


def test_fetch_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'online_retail'"):
        fetch_dataset("online_retial", tmp_path)


def test_fetch_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"x y z"
    _tiny(monkeypatch, text)
    (tmp_path / "tiny.csv.gz").write_bytes(gzip.compress(text, mtime=0))
    kept = fetch_dataset("tiny", tmp_path, from_folder=tmp_path).files[0]
    before = kept.read_bytes()

    def fail_half_way(table: object, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1 and then the power went")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail_half_way)
    with pytest.raises(OSError, match="no space left"):
        fetch_dataset("tiny", tmp_path, from_folder=tmp_path)
    assert kept.read_bytes() == before
    assert list(kept.parent.iterdir()) == [kept]


def test_fetch_download_opens_nested_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"x y z"
    outer = _zipped("inner.zip", _zipped("folder/tiny.csv", text))
    _tiny(monkeypatch, text, members=("inner.zip", "folder/tiny.csv"))
    _answer(monkeypatch, outer)
    assert fetch_dataset("tiny", tmp_path).rows == {"rows": 3}


@pytest.mark.parametrize("answer", [b"<html>moved</html>", _zipped("other.csv", b"")])
def test_fetch_download_of_something_else_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    _tiny(monkeypatch, b"x", members=("tiny.csv",))
    _answer(monkeypatch, answer)
    with pytest.raises(SourceError, match="could not be downloaded") as caught:
        fetch_dataset("tiny", tmp_path)
    assert "--from DIR" in str(caught.value)


def test_fetch_download_with_another_content_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tiny(monkeypatch, b"x y z")
    _answer(monkeypatch, b"x y changed")
    with pytest.raises(SourceError, match="sha256 differs"):
        fetch_dataset("tiny", tmp_path)


def test_fetch_without_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise URLError("network is unreachable")

    monkeypatch.setattr(datasets, "urlopen", refuse)
    with pytest.raises(SourceError, match="could not be downloaded") as caught:
        fetch_dataset("bank_marketing", tmp_path)
    assert "--from DIR" in str(caught.value)
    assert "bank_marketing.csv.gz" in str(caught.value)


def test_fetch_online_retail_from_its_publisher_says_that_it_needs_a_folder(
    tmp_path: Path,
) -> None:
    with pytest.raises(SourceError, match="cannot be taken from its publisher") as caught:
        fetch_dataset("online_retail", tmp_path)
    assert "--from DIR; the folder must hold online_retail.parquet" in str(caught.value)


def test_call_months_of_the_documented_order_are_dated() -> None:
    months = [name for name in DOCUMENTED_MONTHS for _ in range(2)]
    starts, known = call_months(months)
    assert len(CALL_MONTHS) == 26
    assert starts[:2] == [_utc(2008, 5)] * 2
    assert (starts[12], known[12]) == (_utc(2008, 12), _utc(2009, 1))
    assert (starts[-1], known[-1]) == (_utc(2010, 11), _utc(2010, 12))


@pytest.mark.parametrize(
    "months",
    [[], DOCUMENTED_MONTHS[:-1], DOCUMENTED_MONTHS[::-1], [*DOCUMENTED_MONTHS, "dec"]],
)
def test_call_months_of_another_order_are_refused(months: list[str]) -> None:
    with pytest.raises(SourceError, match="documented order"):
        call_months(months)
