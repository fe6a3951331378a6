"""Turns a seed into a schedule: faults, and what clients ask for meanwhile. Pure.

Times are seconds from the start of the schedule. What a fault hits depends on the machine; which
faults occur, in which order and when, depends on the seed alone.
"""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of fault; `faults.py` injects them."""

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
"""Every schedule takes the next three, so any five consecutive seeds include every kind."""

TRAIN, HOLDOUT = 36, 4
"""Fresh samples that a schedule may name; the first ones are training samples."""

LONG = {
    Kind.STOP_PARENT: (0.5, 9.0),
    Kind.STOP_CHILD: (0.5, 6.0),
    Kind.SECOND_BEAT: (2.0, 6.0),
    Kind.DISK_FULL: (0.0, 3.0),
}
"""How many seconds a fault lasts, if not up to three."""


class Asked(StrEnum):
    """What a request names."""

    FIRST = "first model"
    SECOND = "second model"
    BOTH = "dataset"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    at: float
    kind: Kind
    victim: int
    """Which of the two workers to hit, if the fault hits one and both have a job."""

    aim: float
    """Seconds between the start of a job in the victim and the fault; if none starts in time, the
    fault occurs anyway."""

    storing: bool
    """Whether to wait until a job stores its files instead; `aim` is then in units of 10 ms."""

    lasts: float
    """Seconds until a stopped process continues or an ended one is started again; for a full disk,
    counted from the first refused write."""

    step: float
    """Seconds by which the lease clock jumps."""

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
    """Positions in the schedule's fresh samples."""

    copies: int
    """How many copies are sent at once, with one key."""

    impatient: bool
    """Whether the client hangs up before the first answer can come."""

    cancel_after: float | None
    """Seconds from its 202 to its cancellation."""

    def __str__(self) -> str:
        cancelled = f", cancelled {self.cancel_after:.2f} s later" if self.cancel_after else ""
        return (
            f"{self.at:5.2f} s  client  {self.number} asks the {self.asked} to forget "
            f"{len(self.samples)} samples, {self.copies} times at once"
            f"{', hanging up first' if self.impatient else ''}{cancelled}"
        )


@dataclass(frozen=True, slots=True)
class Renewal:
    """A team that trains a model anew and registers what comes of it as its next version."""

    at: float
    of_second: bool
    """Which of the two models."""

    moves_on: bool
    """Whether the dataset's next state is registered before, and trained on."""

    careless: bool
    """Whether it trains on what may not be trained on, too."""

    copies: int

    def __str__(self) -> str:
        what = "a state of the dataset and then " if self.moves_on else ""
        how = ", trained on all there is" if self.careless else ""
        return (
            f"{self.at:5.2f} s  team    registers {what}a version of the "
            f"{Asked.SECOND if self.of_second else Asked.FIRST}, {self.copies} times at once{how}"
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happens to the stack during some seconds."""

    seed: int
    faults: tuple[Fault, ...]
    submissions: tuple[Submission, ...]
    renewals: tuple[Renewal, ...] = ()

    def __str__(self) -> str:
        entries: list[Fault | Submission | Renewal] = [
            *self.faults, *self.submissions, *self.renewals,
        ]  # fmt: skip
        lines = map(str, sorted(entries, key=lambda entry: entry.at))
        return "\n".join([f"seed {self.seed}", *lines])


def draw(seed: int) -> Schedule:
    """The schedule for this seed."""
    dice = random.Random(seed)
    start = 3 * seed % len(DECK)
    kinds = [*DECK[start : start + 3], *dice.choices(DECK, k=dice.randrange(3))]
    faults = sorted((_fault(dice, kind) for kind in kinds), key=lambda fault: fault.at)
    times = [dice.uniform(0.0, 3.0) for _ in range(dice.randint(2, 4))]
    # The API should be killed while it answers, so a client asks it at that moment.
    times += [fault.at for fault in faults if fault.kind is Kind.API_KILLED]
    asked = dice.choice([[Asked.FIRST], [Asked.SECOND], [Asked.BOTH], list(Asked)])
    submissions = (
        _submission(dice, at, number, dice.choice(asked))
        for number, at in enumerate(sorted(times), 1)
    )
    return Schedule(seed, tuple(faults), tuple(submissions), _renewals(seed))


def _renewals(seed: int) -> tuple[Renewal, ...]:
    """Every third schedule has one; their dice are their own, so faults do not depend on them."""
    if seed % 3:
        return ()
    dice = random.Random(f"renewals {seed}")
    return (
        Renewal(
            at=round(dice.uniform(0.0, 3.0), 2),
            of_second=dice.random() < 0.5,
            moves_on=dice.random() < 0.5,
            careless=dice.random() < 0.3,
            copies=dice.choice([1, 1, 2, 5]),
        ),
    )


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
