"""Public data sets: from their publisher, or a folder, to canonical Parquet below the data folder.

Belongs here: where a set comes from, the proof that it is that set (sha256), and its canonical
table: names, types, times. What the columns mean to a use case is said in configs/. A quarter of
this file is the table of addresses and hashes; a reader and its set stay side by side.

Publishers pack the files differently (UCI: a zip, the bank's calls in a zip inside a zip), so a
file from a folder is checked by its own sha256 and a downloaded one by that of its content, which
is byte for byte the same text. Online Retail alone cannot be downloaded: UCI publishes a workbook
of two overlapping sheets, and the canonical file is made from it; it needs `--from DIR`.
"""

import gzip
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_pipeline.errors import NotFoundError, SourceError

TIMEOUT_SECONDS = 30.0
MAX_DOWNLOAD_BYTES = 200_000_000
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CALL_MONTHS = (  # the 26 runs of equal `month`, in the order of the file; 2008 has no September
    *((2008, month) for month in (5, 6, 7, 8, 10, 11, 12)),
    *((2009, month) for month in range(3, 13)),
    *((2010, month) for month in range(3, 12)),
)
ADULT_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation"),
    *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week"),
    *("native_country", "income"),
)
INSTANT = pa.timestamp("us", tz="UTC")

Progress = Callable[[int, int], None]
Tables = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetFile:
    """One file of a set.

    Parameters
    ----------
    name : str
        Its name in a folder given with `--from`.
    sha256 : str
        Of that file.
    url : str
        Where the publisher offers it, or what it was made from.
    members : tuple of str
        The way through the publisher's zip files; empty when the address is the file itself.
    content_sha256 : str or None
        Of the uncompressed content. None: what the publisher offers is not this file.
    """

    name: str
    sha256: str
    url: str
    members: tuple[str, ...] = ()
    content_sha256: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A public data set and how its files become tables."""

    name: str
    files: tuple[DatasetFile, ...]
    licence: str
    source: str
    description: str
    read: Callable[[Sequence[bytes]], Tables]


@dataclass(frozen=True)
class FetchResult:
    """What was written: one Parquet file per table, its rows by table, and their folder."""

    files: tuple[Path, ...]
    rows: Mapping[str, int]
    path: Path


def fetch_dataset(
    name: str,
    folder: Path,
    *,
    from_folder: Path | None = None,
    progress: Progress | None = None,
) -> FetchResult:
    """Bring a data set as `<folder>/sources/<name>/<table>.parquet`.

    The same set gives the same bytes; a file is replaced whole or not at all.
    """
    dataset = _known(name)
    contents = []
    for number, file in enumerate(dataset.files, start=1):
        contents.append(_download(file) if from_folder is None else _read(file, from_folder))
        if progress is not None:
            progress(number, len(dataset.files))
    return _write(dataset.read(contents), folder / "sources" / name)


def _known(name: str) -> Dataset:
    if name in DATASETS:
        return DATASETS[name]
    raise NotFoundError.of("data set", name, DATASETS)


def _read(file: DatasetFile, folder: Path) -> bytes:
    path = folder / file.name
    if not path.is_file():
        raise SourceError(
            "the file of the data set is not in the folder",
            where=str(path),
            expected=f"a file {file.name}",
            found="an existing folder without it" if folder.is_dir() else "no such folder",
            way_out="give the folder that holds it with --from DIR",
        )
    raw = path.read_bytes()
    _verify(raw, file.sha256, str(path))
    return gzip.decompress(raw) if file.name.endswith(".gz") else raw


def _download(file: DatasetFile) -> bytes:
    way_out = f"use --from DIR; the folder must hold {file.name} (sha256 {file.sha256})"
    if file.content_sha256 is None:
        raise SourceError(
            "this data set cannot be taken from its publisher as it is",
            where=file.url,
            expected=file.name,
            found="a workbook, from which the canonical file has to be made",
            way_out=way_out,
        )
    try:
        raw = _get(file.url)
        for member in file.members:
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                raw = archive.read(member)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise SourceError(
            "the data set could not be downloaded",
            where=file.url,
            found=f"{type(error).__name__}: {error}",
            way_out=way_out,
        ) from error
    _verify(raw, file.content_sha256, " > ".join((file.url, *file.members)))
    return raw


def _get(url: str) -> bytes:
    with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 # https addresses of DATASETS
        raw: bytes = answer.read(MAX_DOWNLOAD_BYTES + 1)
    if len(raw) > MAX_DOWNLOAD_BYTES:
        raise OSError(f"more than {MAX_DOWNLOAD_BYTES:,} bytes")
    return raw


def _verify(raw: bytes, expected: str, where: str) -> None:
    found = hashlib.sha256(raw).hexdigest()
    if found != expected:
        raise SourceError(
            "the file is not the published one: its sha256 differs",
            where=where,
            expected=expected,
            found=found,
            way_out="get the file again; a changed file would change every result",
        )


def _write(tables: Tables, folder: Path) -> FetchResult:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".writing-") as unfinished:
        for name, table in tables.items():
            pq.write_table(table, Path(unfinished) / f"{name}.parquet", compression="zstd")
        for name in tables:
            (Path(unfinished) / f"{name}.parquet").replace(folder / f"{name}.parquet")
    return FetchResult(
        files=tuple(folder / f"{name}.parquet" for name in tables),
        rows=MappingProxyType({name: table.num_rows for name, table in tables.items()}),
        path=folder,
    )


def _read_invoices(contents: Sequence[bytes]) -> Tables:
    return {"invoices": _canonical(pq.read_table(io.BytesIO(contents[0])))}


def _read_calls(contents: Sequence[bytes]) -> Tables:
    calls = _csv(contents[0], sep=";")
    calls.columns = calls.columns.str.replace(".", "_", regex=False)
    starts, known = call_months(calls["month"].tolist())
    calls.insert(0, "call_id", range(len(calls)))
    calls["month_start"] = starts
    calls["outcome_known_at"] = known
    return {"calls": _table(calls)}


def call_months(months: Sequence[str]) -> tuple[list[datetime], list[datetime]]:
    """Date the bank's calls: each run of equal months is the next of the 26 documented months."""
    runs = [name for at, name in enumerate(months) if at == 0 or name != months[at - 1]]
    documented = [MONTHS[month - 1] for _, month in CALL_MONTHS]
    if runs != documented:
        raise SourceError(
            "the calls are not in the documented order, so they cannot be dated",
            where="column month",
            expected=f"26 runs: {' '.join(documented)}",
            found=f"{len(runs)} runs: {' '.join(map(str, runs[:40]))}",
        )
    starts: list[datetime] = []
    known: list[datetime] = []
    run = -1
    for at, name in enumerate(months):
        run += at == 0 or name != months[at - 1]
        year, month = CALL_MONTHS[run]
        starts.append(datetime(year, month, 1, tzinfo=UTC))
        known.append(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
    return starts, known


def _read_adult(contents: Sequence[bytes]) -> Tables:
    tables = {}
    for name, content in zip(("train", "test"), contents, strict=True):
        comment_lines = 1 if content.startswith(b"|") else 0
        people = _csv(
            content, names=ADULT_COLUMNS, skiprows=comment_lines, na_values=["?"], header=None
        )
        people["income"] = people["income"].str.removesuffix(".")
        tables[name] = _table(people)
    return tables


def _read_customers(contents: Sequence[bytes]) -> Tables:
    customers = _csv(contents[0], na_values={"TotalCharges": ["", " "]})
    customers.columns = pd.Index(
        [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in customers.columns]
    )
    return {"customers": _table(customers)}


def _csv(content: bytes, **options: Any) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(
        io.BytesIO(content), keep_default_na=False, skipinitialspace=True, **options
    )
    return frame


def _table(frame: pd.DataFrame) -> Any:
    return _canonical(pa.Table.from_pandas(frame, preserve_index=False))


def _canonical(table: Any) -> Any:
    """Return the table with one type per kind: texts as string, times as UTC microseconds."""
    fields = []
    for item in table.schema:
        kind = item.type
        if pa.types.is_timestamp(kind):
            kind = INSTANT  # a time without zone is taken as UTC
        elif pa.types.is_large_string(kind):
            kind = pa.string()
        fields.append(pa.field(item.name, kind))
    return table.cast(pa.schema(fields)).replace_schema_metadata()


_UCI = "https://archive.ics.uci.edu/static/public"
_ADULT = f"{_UCI}/2/adult.zip"
_TELCO = "https://raw.githubusercontent.com/IBM/telco-customer-churn-on-icp4d"

DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        "online_retail": Dataset(
            name="online_retail",
            files=(
                DatasetFile(
                    "online_retail.parquet",
                    "d02cb37b94fcfabe4e2745fb88694f88ae386a1e5d2efcc2f76905bcd0951fc4",
                    f"{_UCI}/502/online+retail+ii.zip",
                ),
            ),
            licence="CC BY 4.0",
            source="UCI Online Retail II (Chen 2012)",
            description="Every invoice line of a UK web shop, 2009-12-01 to 2011-12-09; the days "
            "that both yearly sheets hold are kept once.",
            read=_read_invoices,
        ),
        "bank_marketing": Dataset(
            name="bank_marketing",
            files=(
                DatasetFile(
                    "bank_marketing.csv.gz",
                    "25ef5a7f820659c9010405d079b068761b9e4a75c232a6271ee6a77fc3de52ae",
                    f"{_UCI}/222/bank+marketing.zip",
                    ("bank-additional.zip", "bank-additional/bank-additional-full.csv"),
                    "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8",
                ),
            ),
            licence="CC BY 4.0",
            source="UCI Bank Marketing (Moro, Cortez & Rita 2014)",
            description="Phone calls of a Portuguese bank selling deposits, May 2008 to Nov 2010, "
            "dated by month from their order.",
            read=_read_calls,
        ),
        "adult": Dataset(
            name="adult",
            files=(
                DatasetFile(
                    "adult.data.gz",
                    "c7a2b4716a97f930123e0baf879188d701e798172631a654fc703d4b082907f3",
                    _ADULT,
                    ("adult.data",),
                    "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
                ),
                DatasetFile(
                    "adult.test.gz",
                    "8a2c1bffa6e7ce5abfa43881ae5e87c4311ebc2b3cd526c9c40a43f19f06f799",
                    _ADULT,
                    ("adult.test",),
                    "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
                ),
            ),
            licence="CC BY 4.0",
            source="UCI Adult (Becker & Kohavi 1996)",
            description="US census of 1994: does a person earn more than 50,000 dollars a year?",
            read=_read_adult,
        ),
        "telco_churn": Dataset(
            name="telco_churn",
            files=(
                DatasetFile(
                    "telco_churn.csv.gz",
                    "5d7705674054d56a73bdddb44f616e3f31891beff653c84538d50f7816adf52f",
                    f"{_TELCO}/master/data/Telco-Customer-Churn.csv",
                    (),
                    "16320c9c1ec72448db59aa0a26a0b95401046bef5d02fd3aeb906448e3055e91",
                ),
            ),
            licence="Apache-2.0",
            source="IBM/telco-customer-churn-on-icp4d",
            description="Sample customers of a telecom company and whether they left.",
            read=_read_customers,
        ),
    }
)
