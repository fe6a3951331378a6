import hashlib
import os
from pathlib import Path

import pytest

from service.errors import JobError
from worker.artifacts import STALE_S, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_file_is_found_by_the_hash_of_its_bytes(store):
    digest = store.put(lambda path: path.write_bytes(b"weights"))

    assert digest == hashlib.sha256(b"weights").hexdigest()
    assert store.path(digest).read_bytes() == b"weights"
    assert store.path(digest) == store.root / "objects" / digest[:2] / digest


def test_put_twice_is_kept_once(store, tmp_path):
    (tmp_path / "source").write_bytes(b"weights")

    assert store.add(tmp_path / "source") == store.put(lambda path: path.write_bytes(b"weights"))
    assert len(files(store)) == 1


def test_a_writer_that_fails_leaves_nothing(store):
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store.put(fail)

    assert files(store) == []


def test_a_missing_file_is_named_with_what_to_do(store):
    with pytest.raises(JobError, match=r"The file 000000000000… of the store is missing; restore"):
        store.path("0" * 64)


def test_a_damaged_file_is_refused_and_repaired_by_putting_it_again(store):
    digest = store.put(lambda path: path.write_bytes(b"weights"))
    store.path(digest).write_bytes(b"weightz")

    with pytest.raises(JobError, match="is damaged; restore objects/"):
        store.path(digest)

    store.put(lambda path: path.write_bytes(b"weights"))
    assert store.path(digest).read_bytes() == b"weights"


def test_what_a_killed_process_left_unfinished_is_removed_after_a_day(store):
    store.put(lambda path: path.write_bytes(b"first"))
    fresh, stale = store.root / "incoming-fresh", store.root / "incoming-stale"
    for path in (fresh, stale):
        path.write_bytes(b"half a reservoir")
    long_ago = stale.stat().st_mtime - STALE_S - 60
    os.utime(stale, (long_ago, long_ago))

    store.put(lambda path: path.write_bytes(b"second"))

    assert fresh.exists()
    assert not stale.exists()
