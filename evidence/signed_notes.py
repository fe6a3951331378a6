"""Checkpoints of the log as signed notes, in the forms of C2SP (`signed-note`, `tlog-checkpoint`).

A note is a text, an empty line, and a line for each signature. The text of a checkpoint is the
origin of the log, its size and its root.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

ED25519 = b"\x01"
"""The type of signature, as `signed-note` numbers them."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How long a log was at a moment, and the hash over all of it."""

    origin: str
    """The name of the log; its keys bear it too."""

    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that signs notes: the name it signs under, and its public half (32 bytes)."""

    name: str
    public: bytes
    sign: Callable[[bytes], bytes]
    """The Ed25519 signature (64 bytes) of a text."""

    @property
    def hash(self) -> bytes:
        """The four bytes by which a signature says which key made it."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]


def signed(checkpoint: Checkpoint, keys: Sequence[NoteKey]) -> str:
    """The note: the checkpoint's text and one signature for each key."""
    text = checkpoint.text()
    lines = [
        f"— {key.name} {b64encode(key.hash + key.sign(text.encode())).decode()}\n" for key in keys
    ]
    return f"{text}\n{''.join(lines)}"


def endorsing(name: str, public: bytes) -> bytes:
    """What a key signs to vouch for another one of the same name.

    It is never the text of a checkpoint: that has a number in its second line.
    """
    return f"{name}\nsigning key\n{b64encode(public).decode()}\n".encode()


def read(note: str) -> Checkpoint:
    """The checkpoint in a note of our own making; its signatures are not looked at.

    Raises:
        ValueError: it is none.
    """
    text, separator, _ = note.partition("\n\n")
    origin, size, root = text.split("\n")
    if not separator:
        raise ValueError("a note ends with its signatures")
    return Checkpoint(origin, int(size), b64decode(root, validate=True))
