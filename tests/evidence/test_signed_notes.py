"""Signed notes against the published example of Go's checksum database, and that of C2SP.

`note_test.go` of golang.org/x/mod/sumdb/note has the key and the note; c2sp.org/tlog-checkpoint has
the checkpoint.
"""

from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.judge import verify
from evidence import signed_notes
from evidence.signed_notes import Checkpoint, NoteKey

PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNATURE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


class Text:
    """Any text, where a checkpoint is expected."""

    def text(self) -> str:
        return TEXT


def key(name: str = "PeterNeumann") -> NoteKey:
    private = Ed25519PrivateKey.from_private_bytes(b64decode(PRIVATE.split("+", 4)[4])[1:])
    return NoteKey(name, private.public_key().public_bytes_raw(), private.sign)


def test_the_published_key_has_the_published_id():
    assert key().hash.hex() == "c74f20a3"
    assert key().public == b64decode(PUBLIC.split("+", 2)[2])[1:]
    assert key("EnochRoot").hash != key().hash


def test_the_published_note_is_signed_byte_for_byte():
    assert signed_notes.signed(Text(), [key()]) == f"{TEXT}\n{SIGNATURE}"


def test_the_verifier_reads_the_published_key():
    read = verify.read_key(PUBLIC)

    assert (read.name, read.id.hex(), read.public) == ("PeterNeumann", "c74f20a3", key().public)
    assert read.signed(TEXT.encode(), b64decode(SIGNATURE.split(" ")[2])[4:])


@pytest.mark.parametrize("at", range(len(PUBLIC)))
def test_the_verifier_refuses_the_key_with_any_letter_changed(at):
    changed = PUBLIC[:at] + chr(ord(PUBLIC[at]) + 1) + PUBLIC[at + 1 :]

    with pytest.raises(verify.Refusal):
        verify.read_key(changed)


@pytest.mark.parametrize(
    "given",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_the_verifier_refuses_keys_of_another_length_or_kind(given):
    with pytest.raises(verify.Refusal):
        verify.read_key(given)


@pytest.mark.parametrize(
    "read", [signed_notes.read, lambda note: verify.read_checkpoint(note, "it")]
)
def test_the_published_checkpoint_is_read(read):
    checkpoint = read(SOFA)

    assert checkpoint.origin == "example.com/behind-the-sofa"
    assert checkpoint.size == 20852163
    assert checkpoint.root == b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")


def test_what_is_signed_is_the_text_of_the_published_checkpoint():
    assert signed_notes.read(SOFA).text() == SOFA.partition("\n\n")[0] + "\n"
    assert verify.read_checkpoint(SOFA, "it").text.decode() == SOFA.partition("\n\n")[0] + "\n"


def test_a_note_bears_one_signature_for_each_key_and_each_holds():
    checkpoint = Checkpoint("lethe.example/log", 5, bytes(32))
    other = Ed25519PrivateKey.generate()
    keys = [
        key("lethe.example/log"),
        NoteKey("lethe.example/log", other.public_key().public_bytes_raw(), other.sign),
    ]

    note = signed_notes.signed(checkpoint, keys)

    assert signed_notes.read(note) == checkpoint
    read = verify.read_checkpoint(note, "it")
    for each in keys:
        trusted = verify.Key(each.name, each.public)
        assert read.signer([trusted]) == trusted


@pytest.mark.parametrize(
    "note",
    [
        "",
        "origin\n5\n",
        SOFA.replace("\n\n", "\n"),
        SOFA.replace("20852163", "x"),
        SOFA.replace("CsUY", "!sUY"),
    ],
)
def test_what_is_no_checkpoint_is_not_read(note):
    with pytest.raises(ValueError):  # noqa: PT011 (whichever part it is)
        signed_notes.read(note)
    with pytest.raises(verify.Refusal):
        verify.read_checkpoint(note, "it")
