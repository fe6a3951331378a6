"""Plays many schedules, in one or several stacks at a time, and reports each result."""

import signal
import sys
from collections.abc import Sequence
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from chaos import stack
from chaos.play import Played, Player
from chaos.schedule import draw


def run(
    seeds: Sequence[int], state: Path, settings: dict[str, str], *, stacks: int = 1
) -> list[Played]:
    """Play these schedules in stacks under `state`, and report each result."""
    if stacks == 1:
        return run_in_one(seeds, state, settings)
    shares = [
        (seeds[number::stacks], state / f"stack-{number}", settings) for number in range(stacks)
    ]
    with get_context("spawn").Pool(stacks, initializer=_end_when_told) as pool:
        played = chain(*pool.starmap(run_in_one, shares))
        pool.close()
        pool.join()
        return sorted(played, key=lambda played: played.schedule.seed)


def _end_when_told() -> None:
    """So that started processes are ended when the pool is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run_in_one(seeds: Sequence[int], state: Path, settings: dict[str, str]) -> list[Played]:
    """The same in one stack, one schedule after the other."""
    schedules = []
    with stack.running(state, **settings) as hurt:
        player = Player(hurt)
        for seed in seeds:
            schedules.append(player.play(draw(seed)))
            tell(schedules[-1], state)
    return schedules


def tell(played: Played, state: Path) -> None:
    """One line per schedule, and how to replay it if it broke something."""
    schedule = played.schedule
    recovered = ", ".join(
        f"{each.death.kind} {'never' if each.seconds is None else f'{each.seconds:.1f} s'}"
        for each in played.recoveries
    )
    print(
        f"seed {schedule.seed}: {', '.join(fault.kind for fault in schedule.faults)}; "
        f"{played.clients} clients; {played.seconds:.1f} s, "
        f"settling {played.settling_s:.1f} s; recovered: {recovered or '-'}",
        flush=True,
    )
    if played.violations:
        print(schedule)
        for violation in played.violations:
            print(f"  BROKEN {violation}")
        print(f"  logs:   {state / 'logs'}")
        print(f"  replay: python -m chaos --schedules 1 --seed {schedule.seed}", flush=True)
