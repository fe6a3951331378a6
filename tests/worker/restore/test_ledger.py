"""The suppression ledger outside the database, and what a database lacks of it."""

import json
import stat
from dataclasses import replace

import pytest
from sqlalchemy import delete, select, text, update

from domain import lifting, sample_digests
from domain.states import JobKind, Objective, VersionStatus
from domain.tables import (
    LiftedSample,
    LogCheckpoint,
    ModelVersion,
    SuppressionLift,
    Tombstone,
)
from tests import factories
from worker.restore import compare, ledger
from worker.store.artifacts import Store

IDS = ("t0", "t1", "t2", "h0")


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "outside").mkdir()
    return tmp_path / "outside"


@pytest.fixture
def files(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def forgotten(sync_sessions, files, request):
    """A model that has forgotten `IDS`: version 1 is superseded, version 2 is served. They share
    the files that a test names as its parameter."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    registered = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    job = factories.job(model_id=model.id, finished=True, objective=Objective.UNTRAIN_SAMPLES)
    digests = {name: files.put(lambda path, n=name: path.write_text(n)) for name in ledger.FILES}
    old = factories.version(
        model, registered, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW,
        **{f"{name}_sha256": digest for name, digest in digests.items()},
    )  # fmt: skip
    shared = {f"{name}_sha256": digests[name] for name in getattr(request, "param", ())}
    new = factories.version(model, job, number=2, parent_id=old.id, **shared)
    with sync_sessions.begin() as session:
        for rows in ([dataset], [model], [registered, job], [old], [new]):
            session.add_all(rows)
            session.flush()
        session.add_all(factories.samples(dataset))
        session.add_all(factories.tombstones(model, job, *IDS))
    return model, old


def purge(sessions, version, **told):
    with sessions.begin() as session:
        session.add(factories.event("version.purged", version.id, **told))


def check(sessions, files, directory, anchors=None):
    return compare.check(sessions, files, ledger.read(directory), anchors)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def dig_up(sessions):
    """As a backup from before the deletion has it."""
    with sessions.begin() as session:
        session.execute(delete(Tombstone))


def test_what_was_forgotten_is_kept_without_any_sample_id(sync_sessions, directory, forgotten):
    model, _ = forgotten

    ledger.keep(sync_sessions, directory)

    kept = ledger.read(directory)
    assert {sample.digest for sample in kept.forgotten} == {
        sample_digests.digest(factories.KEY, name) for name in IDS
    }
    assert {(g.model, g.model_id, g.dataset) for g in kept.forgotten} == {
        ("cnn", model.id, "digits")
    }
    assert kept.keys == {model.dataset_id: factories.KEY}
    assert [(r.number, r.purged) for r in kept.retired.values()] == [(1, False)]
    written = "".join(path.read_text() for path in directory.iterdir())
    assert not any(f'"{name}"' in written for name in IDS)


def test_keys_lie_in_files_of_their_own_that_only_their_owner_reads(
    sync_sessions, directory, forgotten
):
    ledger.keep(sync_sessions, directory)

    for path in directory.iterdir():
        is_key = path.name.endswith(ledger.KEY)
        assert stat.S_IMODE(path.stat().st_mode) == (0o400 if is_key else 0o444)
        assert (factories.KEY.hex() in path.read_text()) == is_key


def test_a_file_is_written_once_and_again_only_where_it_is_gone(
    sync_sessions, directory, forgotten
):
    ledger.keep(sync_sessions, directory)
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    (lost,) = directory.glob(f"*{ledger.TOMBSTONES}")
    content = lost.read_text()
    lost.unlink()

    ledger.keep(sync_sessions, directory)
    ledger.keep(sync_sessions, directory)

    assert lost.read_text() == content
    del before[lost.name]
    after = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


def test_a_job_that_buries_anew_after_a_restore_gets_a_further_file(
    sync_sessions, directory, forgotten
):
    ledger.keep(sync_sessions, directory)
    before = names(directory)
    with sync_sessions.begin() as session:
        session.execute(update(Tombstone).values(forgotten_at=factories.NOW))

    ledger.keep(sync_sessions, directory)

    assert len(names(directory)) == len(before) + 1


def test_a_database_from_before_takes_nothing_away(sync_sessions, directory, forgotten):
    ledger.keep(sync_sessions, directory)
    before = names(directory)
    dig_up(sync_sessions)

    ledger.keep(sync_sessions, directory)

    assert names(directory) == before


def test_a_directory_that_is_not_there_is_no_error(sync_sessions, tmp_path, forgotten):
    ledger.keep(sync_sessions, tmp_path / "not mounted")
    ledger.keep(sync_sessions, None)


def test_a_file_that_was_changed_is_said_to_be(sync_sessions, directory, forgotten):
    ledger.keep(sync_sessions, directory)
    (path,) = directory.glob(f"*{ledger.TOMBSTONES}")
    line = json.loads(path.read_text().splitlines()[0])
    del line["digest"]
    path.chmod(0o600)
    path.write_text(json.dumps(line))

    with pytest.raises(ValueError, match="is changed or damaged"):
        ledger.read(directory)


def test_nothing_came_back_where_nothing_was_restored(sync_sessions, directory, forgotten, files):
    ledger.keep(sync_sessions, directory)

    found = check(sync_sessions, files, directory, directory)

    assert not found.came_back
    assert (found.models, found.served, found.files, found.rollback) == ([], [], [], None)


def test_samples_without_their_tombstones_came_back(sync_sessions, directory, forgotten, files):
    ledger.keep(sync_sessions, directory)
    dig_up(sync_sessions)

    found = check(sync_sessions, files, directory)

    [model] = found.models
    assert found.came_back
    assert (model.model, model.missing, model.samples) == ("cnn", 4, 4)
    [demand] = model.demands
    assert list(demand.sample_ids) == sorted(IDS)
    assert demand.objective is Objective.UNTRAIN_SAMPLES
    assert "t0" not in repr(found)


def test_a_dataset_that_was_registered_anew_is_known_by_its_name_though_its_key_is_another(
    sync_sessions, directory, forgotten, files
):
    model, _ = forgotten
    ledger.keep(sync_sessions, directory)
    for path in directory.glob("*.jsonl"):  # as if they told of ids that the database never had
        path.chmod(0o600)
        strange = path.read_text().replace(str(model.id), str(factories.uuid7()))
        strange = strange.replace(str(model.dataset_id), "01a21092-0000-7000-8000-000000000000")
        path.write_text(strange)
    dig_up(sync_sessions)
    key = sample_digests.new_key()
    with sync_sessions.begin() as session:
        session.get_one(factories.Dataset, model.dataset_id).tombstone_key = key
        job = session.query(factories.Job).filter_by(kind=JobKind.UNLEARN).one()
        session.add(factories.tombstone(model, job, "t1", key=key))

    found = check(sync_sessions, files, directory)

    [reappeared] = found.models
    assert (reappeared.missing, reappeared.samples) == (3, 3)
    assert "t1" not in reappeared.demands[0].sample_ids


def test_a_model_the_database_does_not_have_brings_nothing_back(
    sync_sessions, directory, forgotten, files
):
    ledger.keep(sync_sessions, directory)
    for path in directory.glob(f"*{ledger.TOMBSTONES}"):
        path.chmod(0o600)
        other = path.read_text().replace(str(forgotten[0].id), str(factories.uuid7()))
        path.write_text(other.replace('"cnn"', '"gone"'))

    found = check(sync_sessions, files, directory)

    [model] = found.models
    assert (model.model, model.in_database, model.missing, model.samples) == ("gone", False, 4, 0)
    assert not found.came_back


@pytest.mark.parametrize("forgotten", [["statistics", "reservoir"]], indirect=True)
def test_a_champion_that_had_been_superseded_is_named_and_keeps_its_files(
    sync_sessions, directory, files, forgotten
):
    model, old = forgotten
    purge(sync_sessions, old, kept=[])
    ledger.keep(sync_sessions, directory)
    kept = ledger.read(directory)
    with sync_sessions.begin() as session:  # it stands for a version 1 that is served again
        again = session.scalars(select(ModelVersion).filter_by(number=2)).one()
    retired = kept.retired.pop(old.id)
    kept.retired[again.id] = replace(retired, files=[again.statistics_sha256, "d" * 64])

    found = compare.check(sync_sessions, files, kept, None)

    assert [(served.model, served.number) for served in found.served] == [(model.name, 2)]
    assert found.files == []
    assert found.came_back


def test_files_of_a_purged_version_that_are_in_the_store_again_came_back(
    sync_sessions, directory, forgotten, files
):
    _, old = forgotten
    ledger.keep(sync_sessions, directory)
    assert check(sync_sessions, files, directory).files == []
    purge(sync_sessions, old, kept=["reservoir"])
    ledger.keep(sync_sessions, directory)

    found = check(sync_sessions, files, directory)

    gone = {old.weights_sha256, old.statistics_sha256, old.features_sha256}
    assert {file.digest for file in found.files} == gone
    assert found.came_back
    for file in found.files:
        files.remove(file.digest)
    assert not check(sync_sessions, files, directory).came_back


@pytest.mark.parametrize("forgotten", [["statistics"]], indirect=True)
def test_a_file_that_another_version_has_too_stays(sync_sessions, directory, forgotten, files):
    _, old = forgotten
    purge(sync_sessions, old, kept=[])
    ledger.keep(sync_sessions, directory)

    found = check(sync_sessions, files, directory)

    gone = {old.weights_sha256, old.reservoir_sha256, old.features_sha256}
    assert {file.digest for file in found.files} == gone


@pytest.mark.parametrize("grown", [[], [(12, "twelve")]])
def test_an_anchored_checkpoint_that_the_database_lacks_shows_a_rollback_for_ever(
    sync_sessions, directory, forgotten, files, tmp_path, grown
):
    ledger.keep(sync_sessions, directory)
    for size, note in ((3, "three"), (5, "five"), (9, "nine"), *grown):
        (tmp_path / f"{size:020}.checkpoint").write_text(note)
    with sync_sessions.begin() as session:
        for size, note in ((3, "three"), (5, "another five"), *grown):
            session.add(LogCheckpoint(size=size, note=note))

    found = check(sync_sessions, files, directory, tmp_path)

    assert (found.rollback.anchored, found.rollback.agreed) == (9, 3)
    assert not found.came_back


@pytest.mark.parametrize(
    ("due", "received"),
    [("2026-03-31", "2026-02-28"), ("2026-01-15", "2025-12-15"), ("2026-12-01", "2026-11-01")],
)
def test_what_is_asked_for_again_is_due_when_it_was_forgotten_first(due, received):
    at = factories.datetime.fromisoformat(f"{due}T12:00:00+00:00")

    demand = compare.Demand(Objective.UNTRAIN_SAMPLES, False, ["t0"], at)

    assert demand.received_at.isoformat() == f"{received}T12:00:00+00:00"


def test_a_lift_is_kept_outside_and_one_that_a_backup_lacks_is_named(
    sync_sessions, directory, forgotten, files
):
    with sync_sessions.begin() as session:
        lifting.lift(
            session, "digits", ["t0", "t1"], reason="secret", authorised_by="secret",
            lifted_by="admin", actor="api",
        )  # fmt: skip
    ledger.keep(sync_sessions, directory)
    ledger.keep(sync_sessions, directory)

    (written,) = directory.glob(f"*{ledger.LIFTED}")
    assert "secret" not in written.read_text()
    assert check(sync_sessions, files, directory).lifts == []
    with sync_sessions.begin() as session:
        for table in (LiftedSample, SuppressionLift):
            session.execute(text("RESET ROLE"))
            session.execute(delete(table))
            session.execute(text("SET ROLE lethe_app"))
    found = check(sync_sessions, files, directory)
    assert [(lift.dataset, lift.samples) for lift in found.lifts] == [("digits", 2)]
    assert not found.came_back  # the samples are suppressed, as before the lift
