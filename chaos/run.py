"""Plays many schedules, in one house or in several at once, and tells how each went."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path

from chaos import house
from chaos.play import Outcome, Player
from chaos.schedule import draw


def run(
    seeds: Sequence[int], state: Path, settings: dict[str, str], *, houses: int = 1
) -> list[Outcome]:
    """Play these schedules in houses under `state`, telling how each went."""
    shares = [seeds[number::houses] for number in range(houses)]
    own = [state / f"house-{number}" for number in range(houses)]
    if houses == 1:
        return run_in_one(seeds, own[0], settings)
    with ProcessPoolExecutor(houses, mp_context=get_context("spawn")) as pool:
        played = chain(*pool.map(run_in_one, shares, own, repeat(settings)))
        return sorted(played, key=lambda outcome: outcome.schedule.seed)


def run_in_one(seeds: Sequence[int], state: Path, settings: dict[str, str]) -> list[Outcome]:
    """The same in one house, one schedule after the other."""
    outcomes = []
    with house.running(state, **settings) as hurt:
        player = Player(hurt)
        for seed in seeds:
            outcomes.append(player.play(draw(seed)))
            tell(outcomes[-1], state)
    return outcomes


def tell(outcome: Outcome, state: Path) -> None:
    """One line for each schedule; for one that broke something, all that is needed to replay it."""
    schedule = outcome.schedule
    recovered = ", ".join(
        f"{each.death.kind} {'never' if each.seconds is None else f'{each.seconds:.1f} s'}"
        for each in outcome.recoveries
    )
    print(
        f"seed {schedule.seed}: {', '.join(fault.kind for fault in schedule.faults)}; "
        f"{outcome.clients} clients; {outcome.seconds:.1f} s, "
        f"settling {outcome.settling_s:.1f} s; recovered: {recovered or '-'}",
        flush=True,
    )
    if outcome.violations:
        print(schedule)
        for violation in outcome.violations:
            print(f"  BROKEN {violation}")
        print(f"  logs:   {state / 'logs'}")
        print(f"  replay: python -m chaos --schedules 1 --seed {schedule.seed}", flush=True)
