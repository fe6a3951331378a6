"""The log: positions in the order of commits, a tree over every column, signed checkpoints."""

import json
import threading
import traceback
from base64 import b64decode
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Signature
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import sessionmaker

from devstack import roles
from domain.settings import KeySource, WorkerSettings
from domain.tables import AuditEvent, LogCheckpoint, LogLeaf, LogNode, SigningKey
from evidence import entries, merkle, signed_notes, tree
from tests import acting, factories, merkle_proofs
from worker.evidence import keeper, signing

WRITERS, EACH = 16, 40
SUBJECT = UUID(int=7)


@pytest.fixture
def settings(tmp_path):
    return WorkerSettings(
        database_url="postgresql://unused", broker_url="redis://unused", store=tmp_path
    )


@pytest.fixture
def signer():
    return CryptoSigner.generate_ed25519()


@pytest.fixture
def sessions(own_database_url):
    engine = acting.engine(own_database_url, pool_size=WRITERS)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


def record(sessions, count=1, event="request.received"):
    with sessions.begin() as session:
        for number in range(count):
            session.add(factories.event(event, SUBJECT, actor="api", number=number))


def checkpoints(sessions):
    with sessions.begin() as session:
        chosen = select(LogCheckpoint).order_by(LogCheckpoint.size)
        return session.scalars(chosen).all()


def recomputed(sessions, size):
    """The root over the rows as they are now."""
    with sessions.begin() as session:
        rows = session.execute(
            select(AuditEvent, LogLeaf.position)
            .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
            .order_by(LogLeaf.position)
            .limit(size)
        ).all()
        return merkle.root_of([merkle.leaf_hash(entries.entry(*row)) for row in rows])


def test_sixteen_writers_at_once_leave_no_gap_and_keep_the_order_of_their_commits(sessions):
    fence = threading.Barrier(WRITERS)

    def write(writer):
        fence.wait()
        for number in range(EACH):
            with sessions.begin() as session:
                session.add(factories.event("a.first", UUID(int=writer), number=number))
                session.flush()
                if number % 4 == 3:  # taken back: it must leave no trace
                    session.rollback()
                    continue
                session.add(factories.event("a.second", UUID(int=writer), number=number))

    threads = [threading.Thread(target=write, args=[writer]) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with sessions.begin() as session:
        rows = session.execute(
            select(LogLeaf.position, AuditEvent.subject_id, AuditEvent.event, AuditEvent.data)
            .join(AuditEvent, AuditEvent.id == LogLeaf.event_id)
            .order_by(LogLeaf.position)
        ).all()
    assert [row.position for row in rows] == list(range(WRITERS * EACH * 3 // 4 * 2))
    for first, second in zip(rows[::2], rows[1::2], strict=True):  # transactions do not mingle
        assert (first.subject_id, first.event, second.event) == (
            second.subject_id, "a.first", "a.second",
        )  # fmt: skip
    for writer in range(WRITERS):
        numbers = [row.data["number"] for row in rows if row.subject_id.int == writer]
        assert numbers == sorted(numbers)


def test_who_commits_later_stands_later_whoever_wrote_first(sessions):
    with sessions() as early:
        early.add(factories.event("a.early", SUBJECT, actor="api"))
        early.flush()
        record(sessions, event="a.late")
        early.commit()

    with sessions.begin() as session:
        told = session.scalars(
            select(AuditEvent.event).join(LogLeaf).order_by(LogLeaf.position)
        ).all()
    assert told == ["a.late", "a.early"]


def test_a_checkpoint_signs_the_root_over_all_events(sessions, signer, settings):
    record(sessions, 5)

    keeper.keep(sessions, [signer], settings)

    [made] = checkpoints(sessions)
    read = signed_notes.read(made.note)
    assert (read.origin, read.size) == ("lethe", 6)  # the key's own event is one
    assert read.root == recomputed(sessions, 6)


FIRST = "(SELECT event_id FROM audit_leaves WHERE position = 1)"


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE audit_events SET at = at + interval '1 microsecond' WHERE id = {FIRST}",
        f"UPDATE audit_events SET actor = 'worker' WHERE id = {FIRST}",
        f"UPDATE audit_events SET event = 'request.cancelled' WHERE id = {FIRST}",
        f"UPDATE audit_events SET subject_id = gen_random_uuid() WHERE id = {FIRST}",
        f"UPDATE audit_events SET data = '{{\"number\": 8}}' WHERE id = {FIRST}",
        "WITH moved AS (UPDATE audit_events SET id = id + 1000 RETURNING id) "
        "UPDATE audit_leaves SET event_id = event_id + 1000",
        "UPDATE audit_leaves SET position = position + 10 WHERE position >= 2",
        f"DELETE FROM audit_events WHERE id = {FIRST}",
    ],
)
def test_a_change_of_any_column_changes_the_root(sessions, owner_url, signer, settings, change):
    record(sessions, 3)
    keeper.keep(sessions, [signer], settings)
    [made] = checkpoints(sessions)
    engine = create_engine(roles.as_role(owner_url, roles.SUPERUSER))
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE audit_events ALTER id SET GENERATED BY DEFAULT",
            "SET LOCAL session_replication_role = replica",
            change,
        ):
            connection.execute(text(statement))
    engine.dispose()

    assert recomputed(sessions, made.size) != signed_notes.read(made.note).root


def test_every_column_of_an_event_is_in_its_leaf():
    event = AuditEvent(
        id=3, at=datetime.fromisoformat("2026-01-02T03:04:05+01:00"),
        actor="api", event="a.b", subject_id=SUBJECT, data={"é": 1},
    )  # fmt: skip

    entry = json.loads(entries.entry(event, 4))

    assert entry.keys() == {"position", *AuditEvent.__table__.columns.keys()}
    assert entry["at"] == "2026-01-02T02:04:05.000000Z"
    assert entries.entry(event, 4).startswith(b'{"actor":"api","at":"2026')


def test_there_is_a_checkpoint_when_enough_happened_or_time_passed_or_a_request_ended(
    sessions, signer, settings, owner_url
):
    few = settings.model_copy(update={"checkpoint_events": 3})
    record(sessions)
    keeper.keep(sessions, [signer], few)
    assert [made.size for made in checkpoints(sessions)] == [2]

    record(sessions, 2)
    keeper.keep(sessions, [signer], few)
    assert [made.size for made in checkpoints(sessions)] == [2], "too few, too early"

    record(sessions)
    keeper.keep(sessions, [signer], few)
    assert [made.size for made in checkpoints(sessions)] == [2, 5]

    record(sessions, event="request.completed")
    keeper.keep(sessions, [signer], few)
    assert [made.size for made in checkpoints(sessions)] == [2, 5, 6]

    record(sessions)
    keeper.keep(sessions, [signer], few)
    late = few.model_copy(update={"checkpoint_interval": timedelta(0)})
    keeper.keep(sessions, [signer], late)
    keeper.keep(sessions, [signer], late)  # nothing new
    assert [made.size for made in checkpoints(sessions)] == [2, 5, 6, 7]


def test_without_a_key_nothing_is_signed(sessions, settings):
    record(sessions)

    keeper.keep(sessions, [], settings)

    assert checkpoints(sessions) == []


def test_the_tree_grows_in_parts_and_comes_out_the_same(sessions, signer, settings, monkeypatch):
    monkeypatch.setattr(keeper, "HASHED_AT_ONCE", 7)
    record(sessions, 40)

    keeper.keep(sessions, [signer], settings)

    [made] = checkpoints(sessions)
    assert signed_notes.read(made.note).root == recomputed(sessions, 41)
    with sessions.begin() as session:
        nodes = {(node.level, node.index): node.hash for node in session.scalars(select(LogNode))}
    assert nodes.keys() == {(level, index) for level in range(6) for index in range(41 >> level)}


def test_keepers_at_once_make_one_checkpoint(sessions, signer, settings):
    record(sessions, 200)
    keeper.introduce(sessions, [signing.note_key(signer, "lethe")])
    keepers = [
        threading.Thread(target=keeper.keep, args=[sessions, [signer], settings]) for _ in range(4)
    ]
    for thread in keepers:
        thread.start()
    for thread in keepers:
        thread.join()
    keeper.keep(sessions, [signer], settings)  # whoever found the lock taken comes again

    [made] = checkpoints(sessions)
    assert signed_notes.read(made.note).root == recomputed(sessions, 201)


def test_a_new_key_signs_beside_the_old_one_and_both_are_in_the_log(sessions, signer, settings):
    new = CryptoSigner.generate_ed25519()
    record(sessions)
    keeper.keep(sessions, [signer], settings)

    record(sessions)
    late = settings.model_copy(update={"checkpoint_interval": timedelta(0)})
    keeper.keep(sessions, [new, signer], late)

    *_, made = checkpoints(sessions)
    assert made.note.count("— lethe ") == 2
    with sessions.begin() as session:
        told = session.scalars(
            select(AuditEvent.data)
            .filter_by(event="signing_key.introduced")
            .order_by(AuditEvent.id)
        ).all()
        kept = session.scalars(select(SigningKey.public_key).order_by(SigningKey.id)).all()
    assert [signing.public_bytes(key) for key in (signer, new)] == kept
    assert (told[0]["replaces"], told[1]["replaces"]) == (None, told[0]["public_key"])
    for vouching, vouched, word in [
        (signer, new, told[1]["endorsement"]),
        (new, signer, told[1]["acknowledgement"]),
    ]:
        key = Ed25519PublicKey.from_public_bytes(signing.public_bytes(vouching))
        key.verify(b64decode(word), signed_notes.endorsing("lethe", signing.public_bytes(vouched)))
    assert told[0]["endorsement"] is told[0]["acknowledgement"] is None


def test_a_proof_of_an_event_leads_to_the_root_of_the_checkpoint(sessions, signer, settings):
    record(sessions, 20)
    keeper.keep(sessions, [signer], settings)
    [made] = checkpoints(sessions)
    spans = merkle.inclusion(11, made.size)
    with sessions.begin() as session:
        nodes = tree.by_node(session.execute(tree.fetching([*spans, (11, 12)])))

    hashes = [merkle.hash_of(span, nodes) for span in spans]
    root = merkle_proofs.root_from_inclusion(11, made.size, nodes[0, 11], hashes)
    assert root == signed_notes.read(made.note).root


def test_a_key_that_cannot_be_loaded_is_named_by_its_setting_and_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("WRONG", "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----")
    missing = str(tmp_path / "none.pem")
    for uri, told in ((f"file:{missing}", "FileNotFoundError"), ("env:WRONG", "ValueError"),
                      ("env:UNSET", "KeyError"), ("gcpkms:projects/p", "public_key"),
                      ("nokms:x", "public_key"), ("-----BEGIN KEY-----\nsecret", "KMS"),
                      ("env:-----BEGIN KEY-----secret", "KeyError"),
                      ("file:-----BEGIN KEY-----secret\0", "ValueError")):  # fmt: skip
        with pytest.raises(signing.KeyUnusable, match=told) as raised:
            signing.load([KeySource(uri=uri)])
        assert "LETHE_SIGNING_KEYS[0]" in str(raised.value)
        assert "secret" not in str(raised.value)
        assert "secret" not in "".join(traceback.format_exception(raised.value))


def test_a_key_in_a_kms_signs_as_one_in_a_file(sessions, settings, tmp_path, monkeypatch):
    inside = CryptoSigner.generate_ed25519()

    class Remote(CryptoSigner):  # the border: a KMS we do not have
        @classmethod
        def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
            assert priv_key_uri == "testkms:key/1"
            return cls(inside._private_key, public_key)

    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "testkms", Remote)
    public = tmp_path / "public.pem"
    public.write_bytes(
        Ed25519PublicKey.from_public_bytes(
            bytes.fromhex(inside.public_key.keyval["public"])
        ).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )

    record(sessions)
    signers = signing.load([KeySource(uri="testkms:key/1", public_key=public)])
    keeper.keep(sessions, signers, settings)

    [made] = checkpoints(sessions)
    text, _, signature = made.note.partition("\n\n")
    signed = b64decode(signature.split()[2])
    inside.public_key.verify_signature(
        Signature(inside.public_key.keyid, signed[4:].hex()), f"{text}\n".encode()
    )


def test_a_key_in_a_file_or_in_the_environment_is_loaded(tmp_path, monkeypatch):
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    monkeypatch.setenv("LETHE_KEY", pem.decode())

    signers = signing.load(
        [KeySource(uri=f"file:{tmp_path}/key.pem"), KeySource(uri="env:LETHE_KEY")]
    )

    for signer in signers:
        assert signing.public_bytes(signer) == private.public_key().public_bytes_raw()
        assert len(signer.public_key.keyid) == 64
