"""The full disk of `full_disk.c` where there is no C compiler; Python imports it when it starts.

Here files cannot even be opened for writing.
"""

import errno
import os
import sys

STORE, FULL = os.environ.get("CHAOS_STORE"), os.environ.get("CHAOS_DISK_FULL")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Raise what a full disk raises when a file of the store is opened for writing."""
    if event != "open" or not STORE or not FULL:
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
    if writes and isinstance(path, str) and path.startswith(STORE) and os.path.exists(FULL):
        os.close(os.open(f"{FULL}.felt", os.O_CREAT | os.O_WRONLY))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


sys.addaudithook(refuse)
