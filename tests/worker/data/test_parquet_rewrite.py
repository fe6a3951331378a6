"""Rows are taken out of a file, and nothing else about it changes."""

import struct
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import JobError
from worker.data import compact_thrift as thrift
from worker.data import parquet_rewrite
from worker.data.compact_thrift import Reader, Sequence, Value
from worker.data.parquet import Source
from worker.data.parquet_footer import Footer
from worker.data.parquet_rewrite import inspect, rehearse, rewrite

ROWS = 60
GONE = ["p3", "p7", *(f"p{n}" for n in range(20, 40))]
"""Of the first row group two rows, of the second all; the third stays as it is."""

FOREVER = struct.pack("<qI", 0, 5373484)
"""The end of the year 9999 as INT96: Arrow reads it as another time."""

ODD_NAN = struct.unpack("<d", bytes.fromhex("01000000dec0f47f"))[0]


def columns() -> dict:
    """One column of each kind that Parquet can store."""

    def of(kind, *values):
        return pa.array([values[n % len(values)] for n in range(ROWS)], kind)

    children = pa.struct([
        pa.field("a", pa.int8(), nullable=False), ("b", pa.list_(pa.struct([("c", pa.float64())]))),
    ])  # fmt: skip
    return {
        "id": pa.array([f"p{n}" for n in range(ROWS)]),
        "dotted.name": of(pa.uint8(), 255, None, 0),
        "u16": of(pa.uint16(), 65535, 1), "u32": of(pa.uint32(), 2**32 - 1, 0),
        "u64": of(pa.uint64(), 2**64 - 1, 0), "i64": of(pa.int64(), -(2**63), 2**63 - 1, None),
        "bool": of(pa.bool_(), True, False, None), "null": of(pa.null(), None),
        "half": of(pa.float16(), 1.5, -0.0, float("nan")),
        "float": of(pa.float32(), float("inf"), -0.0, float("nan"), None),
        "double": of(pa.float64(), ODD_NAN, -0.0, 5e-324),
        "text": of(pa.string(), "", "é", None), "view": of(pa.string_view(), "x" * 40, None),
        "large": of(pa.large_string(), "x", ""), "blob": of(pa.binary(), b"\xff\x00", b"", None),
        "blob_view": of(pa.binary_view(), b"\xff" * 20, b""),
        "fixed": of(pa.binary(3), b"abc", None),
        "names": of(pa.string(), "a", "b").dictionary_encode(),
        "small": of(pa.decimal128(7, 2), Decimal("-12345.67"), None),
        "wide": of(pa.decimal256(50, 0), Decimal(-(10**49)), Decimal(10**49)),
        "day": of(pa.date32(), -719162, 0), "ms": of(pa.timestamp("ms"), -1, 2**53),
        "us": of(pa.timestamp("us", "UTC"), -62135596800000000, 0),
        "ns": of(pa.timestamp("ns"), -(2**62), 1, None), "time": of(pa.time64("ns"), 1, 2),
        "time32": of(pa.time32("ms"), 1, 2), "took": of(pa.duration("us"), -1, 2),
        "list": of(pa.list_(pa.int32()), [1, None], [], None),
        "fixed_list": of(pa.list_(pa.float32(), 2), [1, -0.0]),
        "struct": of(children, {"a": 1, "b": [{"c": None}, None]}, None, {"a": 2, "b": []}),
        "map": of(pa.map_(pa.string(), pa.int32()), [("k", None)], [], None),
        "uuid": of(pa.uuid(), UUID(int=1).bytes, None),
    }  # fmt: skip


def physical(file) -> pa.Table:
    """The stored values, floats as their bits."""
    return pq.ParquetFile(file, metadata=Footer.of(file).as_stored(bits=True)).read()


STAYING = [n for n in range(ROWS) if f"p{n}" not in GONE]
MANNERS = {
    "as pyarrow writes": {},
    "format 1.0 with INT96": {"version": "1.0", "use_deprecated_int96_timestamps": True},
    "INT96 in 2.6": {"use_deprecated_int96_timestamps": True, "compression": "gzip"},
    "decimals in numbers": {"store_decimal_as_integer": True, "write_time_adjusted_to_utc": True},
    "pages of version 2": {
        "data_page_version": "2.0", "write_page_checksum": True, "write_page_index": True,
        "compression": {"id": "brotli", "text": "zstd", "blob": "lz4"},
        "bloom_filter_options": {"id": {"ndv": 64, "fpp": 0.1}},
        "sorting_columns": [pq.SortingColumn(0)],
    },
    "other encodings": {
        "use_dictionary": ["text"], "write_statistics": ["id", "i64"], "compression": "none",
        "column_encoding": {
            "id": "DELTA_BYTE_ARRAY", "i64": "DELTA_BINARY_PACKED", "double": "BYTE_STREAM_SPLIT",
            "large": "DELTA_LENGTH_BYTE_ARRAY", "bool": "RLE",
        },
    },
    "without a schema of Arrow's": {"store_schema": False},
}  # fmt: skip


@pytest.fixture
def write_all(tmp_path):
    def to_file(**how):
        path = tmp_path / "all.parquet"
        table = pa.table(columns()).replace_schema_metadata({"huggingface": "{}", "mine": "\u00e9"})
        pq.write_table(table, path, row_group_size=20, **how)
        return path

    return to_file


@pytest.mark.parametrize("how", MANNERS.values(), ids=MANNERS)
def test_what_stays_keeps_each_bit_and_the_file_its_form(write_all, tmp_path, how):
    file, new = write_all(**how), tmp_path / "new"

    rewritten = rewrite(file, "id", GONE, new)

    assert (rewritten.rows_before, rewritten.rows_after) == (ROWS, len(STAYING))
    assert physical(new).equals(physical(file).take(STAYING))
    before, after = pq.ParquetFile(file), pq.ParquetFile(new)
    assert after.schema.equals(before.schema)
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.metadata.metadata == before.metadata.metadata
    old, young = before.metadata, after.metadata
    for name in ("created_by", "format_version"):
        assert getattr(young, name) == getattr(old, name)
    assert [young.row_group(n).num_rows for n in range(young.num_row_groups)] == [18, 20]
    for place, number in ((0, 0), (1, 2)):
        was, now = old.row_group(number), young.row_group(place)
        assert now.sorting_columns == was.sorting_columns
        for column in range(old.num_columns):
            assert_alike(was.column(column), now.column(column))


def assert_alike(was, now):
    kept = ["physical_type", "path_in_schema", "compression", "has_offset_index"]
    if was.path_in_schema not in ("small", "wide"):
        kept += ["is_stats_set", "has_column_index"]
    for name in kept:
        assert getattr(now, name) == getattr(was, name), (was.path_in_schema, name)
    levels = {"RLE", "BIT_PACKED"} | ({"PLAIN"} if was.physical_type != "BOOLEAN" else set())
    same_word = {"PLAIN_DICTIONARY": "RLE_DICTIONARY"}
    values = [{same_word.get(e, e) for e in {*each.encodings} - levels} for each in (was, now)]
    assert values[0] == values[1], was.path_in_schema
    assert (now.bloom_filter_offset is None) == (was.bloom_filter_offset is None)


def test_the_statistics_that_are_kept_are_of_the_rows_that_stay(tmp_path):
    file, new = tmp_path / "a.parquet", tmp_path / "new"
    numbers = pa.array([1, 2**32 - 1, 5], pa.uint32())
    pq.write_table(pa.table({"id": ["a", "b", "c"], "n": numbers}), file)

    rewrite(file, "id", {"c"}, new)

    found = [pq.read_metadata(new).row_group(0).column(n).statistics for n in (0, 1)]
    assert [(each.min, each.max) for each in found] == [("a", "b"), (1, 2**32 - 1)]
    assert pq.read_table(new, filters=[("n", ">", 2**31)])["id"].to_pylist() == ["b"]


def test_a_forgotten_value_is_in_no_dictionary_and_no_filter(tmp_path):
    file, new = tmp_path / "a.parquet", tmp_path / "new"
    names = ["somebody" if n == 4 else "anybody" for n in range(9)]
    how = {"compression": "none", "bloom_filter_options": {"name": {"ndv": 9, "fpp": 0.01}}}
    table = pa.table({"id": [str(n) for n in range(9)], "name": names})
    pq.write_table(table, file, write_page_index=True, **how)
    [was] = {pq.read_metadata(file).row_group(0).column(1).bloom_filter_length}

    rewrite(file, "id", {"4"}, new)

    assert b"somebody" in file.read_bytes()
    assert b"somebody" not in new.read_bytes()
    column = pq.read_metadata(new).row_group(0).column(1)
    begin, size = column.bloom_filter_offset, column.bloom_filter_length
    assert (size, was) != (None, None)
    filters = [
        each.read_bytes()[start : start + length]
        for each, start, length in (
            (new, begin, size),
            (file, pq.read_metadata(file).row_group(0).column(1).bloom_filter_offset, was),
        )
    ]
    assert sum(bin(byte).count("1") for byte in filters[0]) < sum(
        bin(byte).count("1") for byte in filters[1]
    )


def with_footer(file, change):
    """The same file with another footer."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<I", raw[-8:-4])
    fields = Reader(raw[-8 - length : -8]).struct()
    change(fields)
    footer = thrift.written(fields)
    file.write_bytes(raw[: -8 - length] + footer + struct.pack("<I", len(footer)) + b"PAR1")


def test_a_time_that_arrow_cannot_read_stays(tmp_path):
    file, new = tmp_path / "a.parquet", tmp_path / "new"
    times = pa.array([FOREVER, b"\0" * 12, FOREVER], pa.binary(12))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "t": times}), file, write_statistics=False)

    def as_int96(fields):
        fields[2].data.items[2][1] = Value(thrift.I32, 3)
        fields[4].data.items[0][1].data.items[1][3].data[1] = Value(thrift.I32, 3)
        fields.pop(5)

    with_footer(file, as_int96)
    assert pq.read_schema(file).field("t").type == pa.timestamp("ns")

    rewrite(file, "id", {"b"}, new)

    assert physical(new).column(1).to_pylist() == [FOREVER, FOREVER]
    assert pq.read_metadata(new).row_group(0).column(1).physical_type == "INT96"


def test_what_this_code_does_not_know_of_a_footer_stays(tmp_path):
    file, new = tmp_path / "a.parquet", tmp_path / "new"
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), file)
    unknown = Value(thrift.LIST, Sequence(thrift.STRUCT, [{1: Value(thrift.DOUBLE, 0.5)}]))

    with_footer(file, lambda fields: fields.__setitem__(77, unknown))
    rewrite(file, "id", {"b"}, new)

    assert Footer.of(new).fields[77] == unknown


def test_a_rehearsal_says_what_could_not_be_kept_and_leaves_nothing(write_all, tmp_path):
    file = write_all(bloom_filter_options={"id": True}, use_deprecated_int96_timestamps=True)
    before = sorted(tmp_path.iterdir())

    rehearse(file, tmp_path / "new")

    assert sorted(tmp_path.iterdir()) == before
    assert inspect(file) == [
        "Bloom filters are made anew, perhaps in another size: 'id'.",
        "Statistics (smallest and largest value) are left out, since the writer cannot order: "
        "'small', 'wide'.",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__setitem__(8, Value(thrift.STRUCT, {})), "is encrypted"),
        (lambda f: chunk(f).__setitem__(1, Value(thrift.BINARY, b"x")), "are in other files"),
        (lambda f: chunk(f).__setitem__(8, Value(thrift.STRUCT, {})), "has encrypted columns"),
        (lambda f: chunk(f)[3].data.__setitem__(9, Value(thrift.I64, 2**40)), "is damaged"),
        (lambda f: chunk(f)[3].data.__setitem__(4, Value(thrift.I32, 3)), "a codec that"),
        (lambda f: f[4].data.items[0].pop(1), "footer of .* is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_rewritten_is_refused_beforehand(tmp_path, change, message):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a", "b"]}), file)
    with_footer(file, change)

    with pytest.raises(JobError, match=message):
        rehearse(file, tmp_path / "new")

    assert list(tmp_path.iterdir()) == [file]


def chunk(fields):
    return fields[4].data.items[0][1].data.items[0]


def test_a_small_file_that_becomes_huge_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rewrite, "MEMORY_FOR_ALL", 2**27)
    file = tmp_path / "a.parquet"
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 200_000])
    table = pa.table({"id": [str(n) for n in range(20_000)], "name": names})
    pq.write_table(table, file, dictionary_pagesize_limit=2**20)

    with pytest.raises(JobError, match="takes too much memory to be rewritten"):
        rehearse(file, tmp_path / "new")

    assert file.stat().st_size < 500_000
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_that_differs_replaces_nothing(write_all, tmp_path, monkeypatch):
    file = write_all()
    original = pq.ParquetWriter.write_table

    def write_the_first_row_only(self, table, **how):
        original(self, table.take(pa.array([0] * table.num_rows, pa.int64())), **how)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_the_first_row_only)

    with pytest.raises(JobError, match="not as expected; nothing was replaced"):
        rewrite(file, "id", GONE, tmp_path / "new")


IDS = {
    "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int8(), pa.string()),
    "dictionary of large_string": pa.dictionary(pa.int32(), pa.large_string()),
    **{str(kind): kind for kind in (
        pa.int8(), pa.int16(), pa.int32(), pa.int64(),
        pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    )},
    "dictionary of numbers": pa.dictionary(pa.int8(), pa.int64()),
}  # fmt: skip


@pytest.mark.parametrize("kind", IDS.values(), ids=IDS)
def test_every_kind_of_id_that_registers_erases(kind, rows, write, definition, tmp_path):
    numbers = list(range(12))
    if kind == pa.uint64():
        numbers[5] = 2**64 - 1
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = not pa.types.is_integer(value)
    ids = pa.array([f"p{n}" for n in numbers] if is_text else numbers, value)
    if pa.types.is_dictionary(kind):
        ids = ids.dictionary_encode()
    file = write(rows(12, id=ids), row_group_size=5)
    gone = str(ids[5])

    Source.open(file, definition)
    rewritten = rewrite(file, "id", {gone}, tmp_path / "new")

    assert rewritten.rows_after == 11
    left = [
        str(each) for each in pq.read_table(tmp_path / "new")["id"].combine_chunks().to_pylist()
    ]
    assert left == [str(each) for each in ids.to_pylist() if str(each) != gone]


def test_ids_may_be_stored_otherwise_in_each_file(rows, write, definition, tmp_path):
    kinds = [pa.int8(), pa.uint64(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())]
    numbers = range(48)
    for place, kind in enumerate(kinds):
        own = [str(n) if place > 1 else n for n in numbers[12 * place :][:12]]
        ids = pa.array(own, kind) if place < 3 else pa.array(own).dictionary_encode().cast(kind)
        top = write(rows(12, id=ids), f"{place}.parquet").parent

    assert Source.open(top, definition).take([20], ["sample_id"]).to_pylist() == [
        {"sample_id": "20"}
    ]
    gone = {"3", "20", "30", "47"}
    left = [
        rewrite(file, "id", gone, tmp_path / "new").rows_after for file in sorted(top.iterdir())
    ]
    assert left == [11] * 4
