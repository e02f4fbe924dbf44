"""Files that cannot be read or break the schema: what, where, expected, found and the way out."""

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_pipeline.errors import SourceError
from mlops_pipeline_tests.lifecycle.ingest.good_visits import GOOD_LINE, HEADER, ROWS, TYPES
from mlops_pipeline_tests.worlds import World, arrow, assert_complete, ingest_all, on, visit


def refused(world: World) -> SourceError:
    """The error of an ingestion; nothing of it may be stored."""
    with world.open() as work:
        with pytest.raises(SourceError) as caught:
            ingest_all(work)
        assert work.lake.state(work.lake.table_uri("shop", "raw", "visits")) is None
    assert_complete(caught.value)
    return caught.value


# files


def test_missing_file_names_the_place_and_how_to_get_one(world: World) -> None:
    error = refused(world)
    assert error.what == "source visits: there is no such file"
    assert error.where == str(world.folder / "visits")
    assert error.expected == "a parquet file, a folder of them, or a glob"
    assert "mlops fetch" in str(error.way_out)
    assert "sources.visits.uri" in str(error.way_out)


def test_folder_without_a_file_names_the_patterns(csv_world: World) -> None:
    (csv_world.folder / "visits").mkdir(parents=True)
    assert str(refused(csv_world).where).endswith(
        f"visits/*.csv or {csv_world.folder}/visits/*.csv.gz"
    )


def test_folder_with_a_file_of_another_format_names_it(csv_world: World) -> None:
    csv_world.deliver_csv("visits", HEADER + GOOD_LINE)
    path = csv_world.deliver("visits", ROWS)
    error = refused(csv_world)
    assert error.what == "source visits: its folder holds a file of another format"
    assert error.where == str(path)
    assert "move it elsewhere" in str(error.way_out)


def test_folder_that_is_a_delta_table_asks_for_the_format(world: World) -> None:
    deltalake.write_deltalake(world.folder / "visits", arrow(TYPES, ROWS))
    error = refused(world)
    assert error.what == "source visits: the folder is a Delta table"
    assert error.way_out == "sources.visits.format: delta"


def test_files_below_folders_of_different_columns_are_refused(world: World) -> None:
    (world.folder / "visits/month=1").mkdir(parents=True)
    pq.write_table(arrow(TYPES, ROWS), world.folder / "visits/a.parquet")
    path = world.folder / "visits/month=1/b.parquet"
    pq.write_table(arrow(TYPES, ROWS[:2]), path)
    error = refused(world)
    assert error.where == str(path)
    assert error.expected == f"below folders of no column, as {world.folder}/visits/a.parquet"
    assert error.found == "month"


def test_partition_value_of_another_type_names_it(world: World) -> None:
    path = world.folder / "visits/units=few/a.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(arrow(TYPES, ROWS).drop_columns(["units"]), path)
    error = refused(world)
    assert error.where == f"{path}: column 'units'"
    assert (error.expected, error.found) == ("int64", "'few' (8 such values)")


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_truncated_parquet_file_is_named_and_nothing_is_stored(world: World, kept: float) -> None:
    path = world.deliver("visits", ROWS * 100)
    content = path.read_bytes()
    size = int(len(content) * kept) if kept == 0.5 else int(kept)
    path.write_bytes(content[:size])
    error = refused(world)
    assert error.where == str(path)
    assert "parquet" in str(error)
    assert error.way_out == "deliver the file again; nothing of it was ingested"


def test_parquet_file_with_damaged_pages_is_named_and_nothing_is_stored(world: World) -> None:
    world.deliver("visits", ROWS)
    rows = arrow(TYPES, [visit(on(1), number, amount=number / 7) for number in range(20_000)])
    path = world.path("visits")
    pq.write_table(rows, path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[100:20_000] = bytes(19_900)  # the footer, with the schema, is whole
    path.write_bytes(content)
    error = refused(world)
    assert error.what == "the file cannot be read as parquet"
    assert str(path) in str(error.where)


def test_unreadable_second_file_leaves_the_stored_table_as_it_was(world: World) -> None:
    world.deliver("visits", ROWS)
    with world.open() as work:
        before = ingest_all(work)["visits"]
        path = world.deliver("visits", ROWS)
        path.write_bytes(b"PAR1 no more")
        with pytest.raises(SourceError, match="cannot be read as parquet"):
            ingest_all(work)
        path.unlink()
        after = ingest_all(work)["visits"]
    assert (after.version, after.rows) == (before.version, 8)


def test_csv_file_with_a_torn_line_is_named(csv_world: World) -> None:
    lines = HEADER + GOOD_LINE * 30_000 + '1,2025-01-02 10:00:00,"never closed'
    path = csv_world.deliver_csv("visits", lines)
    error = refused(csv_world)
    assert error.what == "the file cannot be read as csv"
    assert str(path) in str(error.where)


@pytest.mark.parametrize(
    ("line", "where", "found"),
    [
        ("1,2025-01-02 10:00:00\n", "line 30002", "2 fields, where the header has 6"),
        ("1,2,3,4,5,6,7\n", "line 30002", "7 fields, where the header has 6"),
        (f"1,2,3,4,5,{'x' * 3_000_000}\n", "line 30002", "a field of over 2,000,000 bytes"),
        (
            GOOD_LINE.encode().replace(b"shop", b"Caf\xe9"),
            "line 30002",
            "bytes that are not UTF-8 (invalid",
        ),
        (b'1,2,3,4,5,"x"y\n', "line 30002", "',' expected after '\"'"),
        ('1,2,3,4,5,"never closed', "line 30002", "unexpected end of data"),
    ],
)
def test_csv_fault_names_its_line_and_cause_but_no_value(
    csv_world: World, line: str | bytes, where: str, found: str
) -> None:
    path = csv_world.deliver_csv("visits", HEADER)
    bad = line.encode() if isinstance(line, str) else line
    path.write_bytes((HEADER + GOOD_LINE * 30_000).encode() + bad)
    error = refused(csv_world)
    assert error.what == "the file cannot be read as csv"
    assert error.where == f"{path}: {where}"
    assert str(error.found).startswith(found)
    assert "never closed" not in str(error)
    assert "Caf" not in str(error)


# columns


def test_missing_column_is_named_with_its_type(world: World) -> None:
    path = world.deliver_table("visits", arrow(TYPES, ROWS).drop_columns(["units"]))
    error = refused(world)
    assert error.what == "source visits: a declared column is missing"
    assert error.where == f"{path}: column 'units'"
    assert error.expected == "units (int64)"
    assert error.found == "the columns customer, at, known, amount, kind"
    assert "sources.visits.columns" in str(error.way_out)


def test_renamed_column_names_the_column_it_may_have_become(world: World) -> None:
    names = ["customer", "at", "known", "amount_eur", "units", "kind"]
    world.deliver_table("visits", arrow(TYPES, ROWS).rename_columns(names))
    error = refused(world)
    assert error.expected == "amount (float64)"
    assert error.found == "a column 'amount_eur' that is not declared (renamed?)"


def test_column_that_differs_in_case_counts_as_renamed(world: World) -> None:
    names = ["customer", "at", "known", "Amount", "units", "kind"]
    world.deliver_table("visits", arrow(TYPES, ROWS).rename_columns(names))
    assert "'Amount'" in str(refused(world).found)


def test_extra_column_is_named_with_its_type(world: World) -> None:
    table = arrow(TYPES, ROWS).append_column("colour", pa.array(["red"] * 8))
    path = world.deliver_table("visits", table)
    error = refused(world)
    assert error.what == "source visits: a column is not declared"
    assert error.where == f"{path}: column 'colour' (VARCHAR)"
    assert error.found == "1 more: colour"
    assert "add it to sources.visits.columns" in str(error.way_out)


def test_missing_column_of_a_second_file_is_found_too(world: World) -> None:
    world.deliver("visits", ROWS)
    path = world.deliver_table("visits", arrow(TYPES, ROWS).drop_columns(["kind"]))
    assert refused(world).where == f"{path}: column 'kind'"


@pytest.mark.parametrize(
    ("column", "values", "expected", "found"),
    [
        ("units", pa.array(["1"] * 8), "int64 (read from", "VARCHAR"),
        ("units", pa.array([1.5] * 8), "int64 (read from", "DOUBLE"),
        ("amount", pa.array(["1.5"] * 8), "float64 (read from", "VARCHAR"),
        ("kind", pa.array([1] * 8), "string (read from VARCHAR)", "BIGINT"),
        ("at", pa.array(["2025-01-01"] * 8), "timestamp (read from", "VARCHAR"),
        ("at", pa.array([1] * 8), "timestamp (read from", "BIGINT"),
    ],
)
def test_parquet_column_of_another_type_says_both(
    world: World, column: str, values: pa.Array, expected: str, found: str
) -> None:
    table = arrow(TYPES, ROWS)
    path = world.deliver_table(
        "visits", table.set_column(list(TYPES).index(column), column, values)
    )
    error = refused(world)
    assert error.what == "source visits: a column has another type"
    assert error.where == f"{path}: column {column!r}"
    assert str(error.expected).startswith(expected)
    assert error.found == found
    assert f"sources.visits.columns.{column}" in str(error.way_out)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("units", "one", "int64"),
        ("units", "1.5", "int64"),
        ("amount", "1,5", "float64"),
        ("at", "02.01.2025 noon", "timestamp"),
        ("at", "2025-13-01 00:00:00", "timestamp"),
    ],
)
def test_csv_value_of_another_type_is_shown(
    csv_world: World, column: str, value: str, kind: str
) -> None:
    fields = dict(zip(TYPES, GOOD_LINE.strip().split(","), strict=True))
    line = ",".join(f'"{item}"' for item in {**fields, column: value}.values())
    path = csv_world.deliver_csv("visits", f"{HEADER}{GOOD_LINE}{line}\n{line}\n")
    error = refused(csv_world)
    assert error.what == "a column holds values of another type"
    assert error.where == f"{path}: column {column!r}"
    assert error.expected == kind
    assert error.found == f"'{value}' (2 such values)"


@pytest.mark.parametrize("head", ["", HEADER])
def test_csv_whose_header_is_a_row_of_values_names_none_of_them(
    csv_world: World, head: str
) -> None:
    extra = "" if not head else f"{GOOD_LINE.strip()},more,Rumpelstilzchen\n"
    csv_world.deliver_csv("visits", f"{head}{GOOD_LINE}{GOOD_LINE}{extra}")
    error = refused(csv_world)
    if head:
        assert (str(error.where)[-6:], error.found) == (
            "line 4",
            "8 fields, where the header has 6",
        )
    else:
        assert "no header that names a declared column" in error.what
    shown = str(error)
    assert not [
        value for value in GOOD_LINE.strip().split(",") if len(value) > 3 and value in shown
    ]
    assert "Rumpelstilzchen" not in shown


def test_csv_value_of_a_personal_column_is_shown_as_its_shape(csv_world: World) -> None:
    csv_world.deliver_csv("visits", HEADER + GOOD_LINE.replace("1", "Ann-17", 1))
    assert refused(csv_world).found == "a value like Aaa-99 (1 such values)"


def test_csv_with_empty_fields_and_zones_is_read_as_utc(csv_world: World) -> None:
    csv_world.deliver_csv(
        "visits",
        f"{HEADER}1,2025-01-02T10:00:00+02:00,2025-01-02T10:00:00Z,,3,\n 2 ,,,-1e3, 4 ,x\n",
    )
    with csv_world.open() as work:
        uri = ingest_all(work)["visits"].uri
        state = work.lake.state(uri)
        assert state is not None
        columns = ", ".join(f'"{name}"' for name in TYPES)
        rows = work.engine.query(
            f"SELECT {columns} FROM {work.engine.scan(state)} ORDER BY customer"
        )
    assert rows == [
        (1, on(1, 2, 8), on(1, 2, 10), None, 3, None),
        (2, None, None, -1000.0, 4, "x"),
    ]


# times


def test_times_with_and_without_a_zone_across_parquet_files_are_refused(world: World) -> None:
    naive = world.deliver("visits", ROWS)
    table = arrow(TYPES, ROWS)
    zoned = table.set_column(1, "at", table["at"].cast(pa.timestamp("us", "Europe/Berlin")))
    path = world.deliver_table("visits", zoned)
    error = refused(world)
    assert error.what == "times with and without a time zone are mixed"
    assert error.where == "column 'at'"
    assert error.found == f"a zone in {path}, none in {naive}"
    assert "cannot be told from a local one" in str(error.way_out)


def test_times_with_and_without_a_zone_in_one_csv_file_are_refused(csv_world: World) -> None:
    zoned = GOOD_LINE.replace("10:00:00,", "10:00:00+01:00,", 1)
    path = csv_world.deliver_csv("visits", HEADER + GOOD_LINE * 2 + zoned)
    error = refused(csv_world)
    assert error.what == "times with and without a time zone are mixed"
    assert error.where == "column 'at'"
    assert error.found == f"1 of 3 values have one ({path})"


def test_time_with_a_named_zone_beside_one_without_is_refused(csv_world: World) -> None:
    zoned = GOOD_LINE.replace("10:00:00,", "10:00:00 Europe/Berlin,", 1)
    csv_world.deliver_csv("visits", HEADER + GOOD_LINE * 2 + zoned)
    assert refused(csv_world).what == "times with and without a time zone are mixed"


def test_times_with_and_without_a_zone_across_csv_files_are_refused(csv_world: World) -> None:
    csv_world.deliver_csv("visits", HEADER + GOOD_LINE)
    zoned = GOOD_LINE.replace("10:00:00", "10:00:00Z")
    path = csv_world.deliver_csv("visits", HEADER + zoned)
    assert str(path) in str(refused(csv_world).found)
