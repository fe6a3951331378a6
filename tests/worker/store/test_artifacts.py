import hashlib
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.errors import JobError, StoreUnwritable
from worker.store.artifacts import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> list[Path]:
    """All but the one that is locked while another gets its name."""
    return [path for path in store.root.rglob("*") if path.is_file() and path.name != "lock"]


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

    with pytest.raises(StoreUnwritable, match="No space left"):
        store.put(fail)

    assert files(store) == []


def test_a_missing_file_is_named_with_what_to_do(store):
    with pytest.raises(
        JobError,
        match=r"The file 000000000000… of the store is missing; unless its version was purged",
    ):
        store.path("0" * 64)


def test_a_damaged_file_is_refused_and_repaired_by_putting_it_again(store):
    digest = store.put(lambda path: path.write_bytes(b"weights"))
    store.path(digest).write_bytes(b"weightz")

    with pytest.raises(JobError, match="is damaged; restore objects/"):
        store.path(digest)

    store.put(lambda path: path.write_bytes(b"weights"))
    assert store.path(digest).read_bytes() == b"weights"


def aged(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half a reservoir")
    os.utime(path, (time.time() - seconds, time.time() - seconds))
    return path


def test_old_files_without_a_name_are_removed_and_no_others(store):
    named = store.put(lambda path: path.write_bytes(b"named"))
    nameless = store.put(lambda path: path.write_bytes(b"nameless"))
    for digest in (named, nameless):
        os.utime(store.path(digest), (0, 0))
    young = store.put(lambda path: path.write_bytes(b"young"))
    killed = aged(store.root / "incoming-killed", 3700)
    busy = aged(store.root / "incoming-busy", 10)

    removed = store.remove_orphans({named}, before=datetime.now(UTC) - timedelta(hours=1))

    assert removed == 2
    assert store.path(named)
    assert store.path(young)
    assert busy.exists()
    assert not killed.exists()
    with pytest.raises(JobError, match="is missing"):
        store.path(nameless)


def test_what_is_put_again_is_young_again(store):
    digest = store.put(lambda path: path.write_bytes(b"weights"))
    os.utime(store.path(digest), (0, 0))
    store.put(lambda path: path.write_bytes(b"weights"))

    assert store.remove_orphans(set(), before=datetime.now(UTC) - timedelta(hours=1)) == 0
    assert store.path(digest)


def test_a_killed_writer_leaves_what_its_parent_can_remove(tmp_path):
    mine, others = Store(tmp_path, "job-1"), Store(tmp_path, "job-2")
    left = aged(tmp_path / "incoming-job-1-abc", 0)
    other = aged(tmp_path / "incoming-job-2-abc", 0)

    mine.remove_unfinished()

    assert not left.exists()
    assert other.exists()
    others.remove_unfinished()
    assert not other.exists()
