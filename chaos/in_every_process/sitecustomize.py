"""Python imports this when a process of the stack starts.

It skips torch's compiler, which optimisers import and these jobs never use: the import takes half
as long as the job. It also replaces `full_disk.c` if there is no C compiler: files then cannot even
be opened for writing.
"""

import errno
import os
import sys
from types import ModuleType

STORE, FULL = os.environ.get("CHAOS_STORE"), os.environ.get("CHAOS_DISK_FULL")


def no_compiler() -> ModuleType:
    """The part of `torch._dynamo` that an optimiser needs."""
    absent = ModuleType("torch._dynamo")
    absent.disable = lambda function=None, *_, **__: function  # type: ignore[attr-defined]
    absent.graph_break = lambda *_, **__: None  # type: ignore[attr-defined]
    return absent


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Raise the error of a full disk when a file of the store is opened for writing."""
    if event != "open" or not STORE or not FULL:
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
    if writes and isinstance(path, str) and path.startswith(STORE) and os.path.exists(FULL):
        os.close(os.open(f"{FULL}.felt", os.O_CREAT | os.O_WRONLY))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


sys.modules["torch._dynamo"] = no_compiler()
if os.environ.get("CHAOS_DISK_BY_PYTHON"):
    sys.addaudithook(refuse)
