"""From a seed to what happens and when: faults, and what clients ask for meanwhile. Pure.

Times are seconds from the start of the schedule. What a fault meets depends on the machine; what is
done, in which order and when, depends on the seed alone.
"""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be done to the stack; `faults.py` does it."""

    KILL_PARENT = "kill_parent"
    KILL_CHILD = "kill_child"
    STOP_PARENT = "stop_parent"
    STOP_CHILD = "stop_child"
    TERM_PARENT = "term_parent"
    TERM_CHILD = "term_child"
    REDIS_FLUSHED = "redis_flushed"
    REDIS_RESTARTED = "redis_restarted"
    POSTGRES_RESTARTED = "postgres_restarted"
    POSTGRES_CRASHED = "postgres_crashed"
    API_KILLED = "api_killed"
    DOORBELLS = "doorbells"
    SECOND_BEAT = "second_beat"
    LEASE_STEPPED = "lease_stepped"
    DISK_FULL = "disk_full"


OF_WORKERS = frozenset(
    {
        Kind.KILL_PARENT, Kind.KILL_CHILD, Kind.STOP_PARENT, Kind.STOP_CHILD, Kind.TERM_PARENT,
        Kind.TERM_CHILD,
    }
)  # fmt: skip

DECK = (
    Kind.KILL_PARENT, Kind.REDIS_RESTARTED, Kind.LEASE_STEPPED,
    Kind.KILL_CHILD, Kind.API_KILLED, Kind.SECOND_BEAT,
    Kind.STOP_PARENT, Kind.POSTGRES_CRASHED, Kind.DOORBELLS,
    Kind.TERM_PARENT, Kind.DISK_FULL, Kind.REDIS_FLUSHED,
    Kind.TERM_CHILD, Kind.POSTGRES_RESTARTED, Kind.STOP_CHILD,
)  # fmt: skip
"""Every schedule takes the next three; so any five seeds in a row have every kind."""

TRAIN, HOLDOUT = 36, 4
"""Fresh samples that a schedule may name: the first are training samples."""

LONG = {
    Kind.STOP_PARENT: (0.5, 9.0),
    Kind.STOP_CHILD: (0.5, 6.0),
    Kind.SECOND_BEAT: (2.0, 6.0),
    Kind.DISK_FULL: (0.0, 3.0),
}
"""Seconds that a fault lasts, where it is not up to three."""


class Asked(StrEnum):
    """Whom a request names."""

    FIRST = "first model"
    SECOND = "second model"
    BOTH = "dataset"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    kind: Kind
    victim: int
    """Of the two workers, where it strikes one and both have a job."""

    aim: float
    """Seconds between the start of a job in the victim and the blow; where none starts in time,
    the blow comes all the same."""

    storing: bool
    """Whether it waits until a job stores its files instead; `aim` then counts hundredths."""

    lasts: float
    """Until what was stopped goes on, or what ended is started again; of a full disk, from when it
    was felt."""

    step: float
    """Seconds by which the clock of the leases jumps."""

    def __str__(self) -> str:
        if self.kind is Kind.LEASE_STEPPED:
            return f"{self.at:5.2f} s  fault   {self.kind} by {self.step:+.1f} s"
        told = f"{self.at:5.2f} s  fault   {self.kind} for {self.lasts:.2f} s"
        if self.kind not in OF_WORKERS:
            return told
        when = (
            f"{self.aim / 100:.3f} s after it stores files"
            if self.storing
            else (f"{self.aim:.2f} s into its job")
        )
        return f"{told}, worker {self.victim}, {when}"


@dataclass(frozen=True, slots=True)
class Submission:
    """One client with one deletion request."""

    at: float
    number: int
    asked: Asked
    samples: tuple[int, ...]
    """Positions among the schedule's fresh samples."""

    copies: int
    """How many of it are sent at once, with one key."""

    impatient: bool
    """Whether it hangs up before the first answer can come."""

    cancel_after: float | None
    """Seconds after its 202."""

    def __str__(self) -> str:
        cancelled = f", cancelled {self.cancel_after:.2f} s later" if self.cancel_after else ""
        return (
            f"{self.at:5.2f} s  client  {self.number} asks the {self.asked} to forget "
            f"{len(self.samples)} samples, {self.copies} times at once"
            f"{', hanging up first' if self.impatient else ''}{cancelled}"
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens to the stack for some seconds."""

    seed: int
    faults: tuple[Fault, ...]
    submissions: tuple[Submission, ...]

    def __str__(self) -> str:
        entries: list[Fault | Submission] = [*self.faults, *self.submissions]
        lines = map(str, sorted(entries, key=lambda entry: entry.at))
        return "\n".join([f"seed {self.seed}", *lines])


def draw(seed: int) -> Schedule:
    """The schedule of this seed."""
    dice = random.Random(seed)
    start = 3 * seed % len(DECK)
    kinds = [*DECK[start : start + 3], *dice.choices(DECK, k=dice.randrange(3))]
    faults = sorted((_fault(dice, kind) for kind in kinds), key=lambda fault: fault.at)
    times = [dice.uniform(0.0, 3.0) for _ in range(dice.randint(2, 4))]
    # The API is to be killed while it answers: somebody asks it just then.
    times += [fault.at for fault in faults if fault.kind is Kind.API_KILLED]
    asked = dice.choice([[Asked.FIRST], [Asked.SECOND], [Asked.BOTH], list(Asked)])
    submissions = (
        _submission(dice, at, number, dice.choice(asked))
        for number, at in enumerate(sorted(times), 1)
    )
    return Schedule(seed, tuple(faults), tuple(submissions))


def _fault(dice: random.Random, kind: Kind) -> Fault:
    return Fault(
        at=round(dice.uniform(0.5, 5.0), 2),
        kind=kind,
        victim=dice.randint(1, 2),
        aim=round(dice.uniform(0.0, 4.0), 2),
        storing=dice.random() < 0.3,
        lasts=round(dice.uniform(*LONG.get(kind, (0.2, 3.0))), 2),
        step=round(dice.uniform(-6.0, 6.0), 1),
    )


def _submission(dice: random.Random, at: float, number: int, asked: Asked) -> Submission:
    holdout_only = dice.random() < 0.1
    named = range(TRAIN, TRAIN + HOLDOUT) if holdout_only else range(TRAIN + HOLDOUT)
    return Submission(
        at=round(at, 2),
        number=number,
        asked=asked,
        samples=tuple(dice.sample(named, dice.randint(1, min(12, len(named))))),
        copies=dice.choice([1, 1, 1, 2, 5]),
        impatient=dice.random() < 0.25,
        cancel_after=round(dice.uniform(0.0, 5.0), 2) if dice.random() < 0.2 else None,
    )
