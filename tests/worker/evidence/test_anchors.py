"""Checkpoints outside the database: a directory, a webhook, a time-stamp authority."""

import stat
from hashlib import sha512

import pytest
from rfc3161_client import decode_timestamp_response
from sqlalchemy import select

from domain.settings import WorkerSettings
from domain.tables import LogAnchor, LogCheckpoint
from evidence.signed_notes import Checkpoint
from tests.receivers import receiver
from tests.time_stamps import authority
from worker.evidence import anchors
from worker.evidence.anchors import NotAnchored

NOTE = Checkpoint("lethe", 7, bytes(32)).text() + "\n— lethe AAAA\n"


@pytest.fixture
def tsa(tmp_path):
    with authority(tmp_path) as running:
        yield running


def configured(tmp_path, **settings):
    return anchors.configured(
        WorkerSettings(
            database_url="postgresql://unused", broker_url="redis://unused", store=tmp_path,
            **settings,
        )
    )  # fmt: skip


def ok(request):
    request.send_response(204)
    request.end_headers()


def busy(request):
    request.send_response(503)
    request.end_headers()


def add_checkpoint(sessions, size):
    with sessions.begin() as session:
        session.add(LogCheckpoint(size=size, note=NOTE))


def anchored(sessions):
    with sessions.begin() as session:
        rows = session.scalars(select(LogAnchor).order_by(LogAnchor.size, LogAnchor.kind))
        return {(row.size, row.kind): row.receipt for row in rows}


def test_nothing_is_anchored_where_nothing_is_configured(tmp_path, sync_sessions):
    add_checkpoint(sync_sessions, 7)

    anchors.anchor_newest(sync_sessions, configured(tmp_path))

    assert anchored(sync_sessions) == {}


def test_a_directory_gets_one_file_for_each_checkpoint_which_nobody_may_write(tmp_path):
    anchors.put(tmp_path, 7, NOTE)
    anchors.put(tmp_path, 7, NOTE)

    [file] = tmp_path.iterdir()
    assert file.name == "00000000000000000007.checkpoint"
    assert file.read_text() == NOTE
    assert stat.S_IMODE(file.stat().st_mode) == 0o444


def test_another_checkpoint_of_the_same_size_is_an_alarm_and_replaces_nothing(tmp_path):
    anchors.put(tmp_path, 7, NOTE)

    with pytest.raises(NotAnchored, match="differs"):
        anchors.put(tmp_path, 7, NOTE.replace("lethe", "other"))

    assert (tmp_path / "00000000000000000007.checkpoint").read_text() == NOTE


def test_every_anchor_that_is_configured_gets_the_newest_checkpoint_once(
    tmp_path, sync_sessions, tsa
):
    add_checkpoint(sync_sessions, 5)
    add_checkpoint(sync_sessions, 7)
    with receiver(ok) as hook:
        everywhere = configured(
            tmp_path,
            anchor_directory=tmp_path / "worm",
            anchor_webhook=f"http://127.0.0.1:{hook.port}/anchors",
            anchor_tsa=tsa.url,
            anchor_tsa_roots=tsa.roots,
        )
        (tmp_path / "worm").mkdir()
        anchors.anchor_newest(sync_sessions, everywhere)
        anchors.anchor_newest(sync_sessions, everywhere)

    stored = anchored(sync_sessions)
    assert stored.keys() == {(7, "directory"), (7, "webhook"), (7, "rfc3161")}
    assert [body for _, body in hook.received] == [NOTE]
    token = decode_timestamp_response(stored[7, "rfc3161"])
    assert token.tst_info.message_imprint.message == sha512(NOTE.encode()).digest()


def test_an_anchor_that_fails_is_tried_again_and_keeps_no_other_from_it(tmp_path, sync_sessions):
    add_checkpoint(sync_sessions, 7)
    with receiver(busy) as hook:
        both = configured(
            tmp_path,
            anchor_directory=tmp_path,
            anchor_webhook=f"http://127.0.0.1:{hook.port}/",
        )
        anchors.anchor_newest(sync_sessions, both)
        assert anchored(sync_sessions).keys() == {(7, "directory")}
        hook.answer = ok
        anchors.anchor_newest(sync_sessions, both)

    assert anchored(sync_sessions).keys() == {(7, "directory"), (7, "webhook")}


def test_two_who_anchor_at_once_leave_the_first_receipt(sync_sessions):
    add_checkpoint(sync_sessions, 7)

    def slow(size, note):
        anchors.anchor_newest(sync_sessions, {"rfc3161": lambda size, note: b"first"})
        return b"second"

    anchors.anchor_newest(sync_sessions, {"rfc3161": slow})

    assert anchored(sync_sessions) == {(7, "rfc3161"): b"first"}


def test_an_anchor_that_is_not_there_is_no_error(tmp_path, sync_sessions):
    add_checkpoint(sync_sessions, 7)

    anchors.anchor_newest(
        sync_sessions,
        configured(
            tmp_path,
            anchor_directory=tmp_path / "not mounted",
            anchor_webhook="http://127.0.0.1:1/",
        ),
    )

    assert anchored(sync_sessions) == {}


def test_a_token_over_something_else_is_refused(tsa):
    tsa.stamped = sha512(b"another checkpoint").digest()

    with pytest.raises(NotAnchored, match="not valid"):
        anchors.stamp(tsa.url, NOTE, tsa.roots.read_bytes())


def test_a_token_of_a_stranger_is_refused(tsa, tmp_path):
    (tmp_path / "other").mkdir()
    with (
        authority(tmp_path / "other") as stranger,
        pytest.raises(NotAnchored, match="not valid"),
    ):
        anchors.stamp(stranger.url, NOTE, tsa.roots.read_bytes())


def test_an_authority_that_refuses_gives_no_anchor(tsa):
    tsa.status = 500

    with pytest.raises(NotAnchored, match="500"):
        anchors.stamp(tsa.url, NOTE, tsa.roots.read_bytes())


def test_an_answer_of_any_length_is_not_read():
    def flood(request):
        request.send_response(200)
        request.end_headers()
        for _ in range(64):
            request.wfile.write(bytes(4096))

    with receiver(flood) as hook, pytest.raises(NotAnchored, match="too large"):
        anchors.send(f"http://127.0.0.1:{hook.port}/", NOTE)


def test_an_authority_needs_those_whom_to_trust(tmp_path):
    with pytest.raises(ValueError, match="LETHE_ANCHOR_TSA_ROOTS"):
        configured(tmp_path, anchor_tsa="https://tsa.example.com/")
