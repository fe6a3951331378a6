"""The exit status of every command."""

from enum import IntEnum

from lethe import errors


class Exit(IntEnum):
    """Documented in `lethe --help`; scripts rely on it."""

    DONE = 0
    NOT_A_SUCCESS = 1
    """What was waited for ended otherwise, or some samples may not be trained on."""

    USAGE = 2
    REFUSED = 3
    """The service refused: a problem document says why."""

    NO_ANSWER = 4
    """The service cannot be reached, cannot answer now, or something else answers in its place."""

    STILL_WAITING = 5
    DIFFERENT = 6
    """Downloaded bytes are not those that the service names."""

    INTERRUPTED = 130


HELP = """
Exit status: 0 done

1 it ended, but not as a success, or some samples may not be trained on

2 wrong usage

3 the service refused

4 no answer from the service

5 still waiting when the time was over

6 downloaded bytes are not those that the service names

`lethe verify` has the verifier's own.
"""


def of(error: errors.LetheError) -> Exit:
    """The exit status that an exception ends a command with."""
    if isinstance(error, errors.Unavailable | errors.ServiceFailed | errors.Busy):
        return Exit.NO_ANSWER
    if isinstance(error, errors.Problem):
        return Exit.REFUSED
    if isinstance(error, errors.StillWaiting):
        return Exit.STILL_WAITING
    if isinstance(error, errors.WeightsDiffer):
        return Exit.DIFFERENT
    return Exit.USAGE if isinstance(error, errors.NotSent) else Exit.NO_ANSWER
