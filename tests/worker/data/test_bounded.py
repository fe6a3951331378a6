"""Files that say, or become, more than they are, made small by small budgets."""

import os
import resource
import struct
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import hostile
from domain.errors import JobError
from tests import fresh
from worker import budgets
from worker.data.parquet import Source

MB = 2**20
DEFINITION = {"columns": hostile.COLUMNS, "splits": hostile.SPLITS, "input_shape": None}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Budgets of a few megabytes."""
    monkeypatch.setattr(budgets, "READ_BYTES", 24 * MB)
    monkeypatch.setattr("worker.data.parquet.BATCH_BYTES", 4 * MB)


def read(path, roles=("sample_id", "input")):
    """The sizes of the batches, and how many rows they have."""
    batches = [batch for _, batch in Source.open(path, DEFINITION).batches(roles)]
    return [batch.nbytes for batch in batches], sum(batch.num_rows for batch in batches)


@pytest.mark.parametrize("column", ["id", "input"])
def test_a_large_value_that_every_row_has_is_read_a_few_rows_at_a_time(tmp_path, column):
    path = tmp_path / "data.parquet"
    hostile.value_repeated(MB, 200, column)(path)
    assert path.stat().st_size < 100_000

    sizes, rows = read(path)

    assert rows == 200
    assert max(sizes) <= 6 * MB


def test_a_footer_that_lies_changes_nothing(tmp_path):
    path = tmp_path / "data.parquet"
    hostile.lying(hostile.value_repeated(2 * MB, 50))(path)
    assert pq.read_metadata(path).row_group(0).column(1).total_uncompressed_size == 1

    sizes, rows = read(path)

    assert (rows, max(sizes) <= 6 * MB) == (50, True)


def test_files_may_not_become_too_much_altogether(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "BYTES_FOR_ALL", 10 * MB)
    monkeypatch.setattr(budgets, "BYTES_PER_BYTE", 1)
    path = tmp_path / "data.parquet"
    hostile.value_repeated(MB, 200)(path)

    with pytest.raises(JobError, match="more bytes of data than files of that size can sensibly"):
        read(path)


def test_a_page_that_becomes_huge_is_refused(tmp_path):
    files = [tmp_path / f"{codec}.parquet" for codec in ("zstd", "gzip", "brotli")]
    for file in files:
        hostile.one_page(file.stem, 8 * MB)(file)

    refused = fresh.printed(
        """
import sys
from pathlib import Path
from domain.errors import JobError
from tests.worker.data import test_bounded as small
small.budgets.READ_BYTES = 24 * small.MB
for file in sys.argv[1:]:
    try:
        small.read(Path(file))
    except JobError as error:
        print(error)
""",
        *files,
    )

    assert refused.count("takes more than 24 MB of memory") == 3, refused


def test_rows_that_are_all_alike_may_not_be_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "ROWS_FOR_ALL", 1000)
    path = tmp_path / "data.parquet"
    hostile.many_rows(10**6)(path)

    with pytest.raises(JobError, match="more rows than files of that size can sensibly hold"):
        Source.open(path, DEFINITION)


def test_a_footer_may_not_be_too_large(tmp_path, monkeypatch):
    path = tmp_path / "data.parquet"
    hostile.many_groups(20)(path)
    monkeypatch.setattr(budgets, "FOOTER_BYTES", 2000)

    with pytest.raises(JobError, match=r"The footer of .* is too large"):
        Source.open(path, DEFINITION)


@pytest.mark.parametrize("groups", [1000, 10**6])
def test_a_footer_of_empty_row_groups_is_no_use(tmp_path, groups):
    path = tmp_path / "data.parquet"
    hostile.footer_of(groups=groups)(path)

    with pytest.raises(JobError):
        Source.open(path, DEFINITION)


def test_columns_may_not_be_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "COLUMNS", 50)
    path = tmp_path / "data.parquet"
    hostile.many_columns(60)(path)

    with pytest.raises(JobError, match="too many columns"):
        Source.open(path, DEFINITION)


def test_a_file_that_changes_while_it_is_read_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "data.parquet"
    hostile.many_groups(3)(path)
    source = Source.open(path, DEFINITION)
    hostile.many_groups(1)(path)

    with pytest.raises(JobError, match="changed since it was indexed"):
        list(source.batches())


def test_bytes_that_were_changed_anywhere_are_an_error_or_rows(tmp_path):
    """Headers of pages that lie, and everything else: never another error, and never a crash."""
    path = tmp_path / "data.parquet"
    hostile.value_repeated(1000, 50)(path)
    sound = path.read_bytes()
    dice = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(sound)
        for place in dice.integers(4, len(sound) - 4, dice.integers(1, 4)):
            broken[place] = dice.integers(256)
        path.write_bytes(broken)
        with suppress(JobError):
            read(path, ("sample_id", "input", "label", "split"))


def test_a_file_that_ends_early_is_an_error(tmp_path):
    path = tmp_path / "data.parquet"
    hostile.value_repeated(1000, 50)(path)
    sound = path.read_bytes()
    for size in (0, 3, 8, 11, len(sound) - 1, len(sound) // 2):
        path.write_bytes(sound[:size])
        with pytest.raises(JobError):
            Source.open(path, DEFINITION)
    path.write_bytes(b"PAR1" + struct.pack("<I", 2**32 - 1) + b"PAR1")
    with pytest.raises(JobError):
        Source.open(path, DEFINITION)


def test_a_pipe_among_the_files_is_refused_and_not_waited_for(tmp_path):
    hostile.many_groups(1)(tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")

    with pytest.raises(JobError, match=r"b\.parquet is neither a file nor a directory"):
        Source.open(tmp_path, DEFINITION)


def test_the_limit_is_gone_afterwards():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(MemoryError), budgets.within(8 * MB):
        bytearray(64 * MB)
    assert len(bytearray(64 * MB)) == 64 * MB
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
