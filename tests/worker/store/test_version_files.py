"""Naming files and deleting them, without collisions."""

from sqlalchemy import func, select
from sqlalchemy.orm import sessionmaker

from tests import acting
from tests.worker.old_versions import putting
from worker.store import version_files
from worker.store.artifacts import Store


def test_who_names_files_and_who_deletes_them_take_turns(own_database_url, tmp_path):
    store = Store(tmp_path / "store")
    engine = acting.engine(own_database_url)
    sessions = sessionmaker(engine)
    with sessions.begin() as naming:
        version_files.keep_files(naming, store, putting(store)(b"a", b"b", b"c").values())
        with sessions.begin() as session:
            free = func.pg_try_advisory_xact_lock(version_files.NAMING_LOCK)
            assert session.scalar(select(free)) is False
    engine.dispose()
