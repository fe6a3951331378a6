"""Plays schedules on a stack, and runs the checker after each.

A *stand* is a dataset and two models trained on it, registered without faults. Several schedules
share one, each with samples of its own.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row

from chaos import checker, samples
from chaos.checker import Violation, files
from chaos.clients import Client, client
from chaos.faults import strike
from chaos.promise import Death, Offer, Promise
from chaos.recovery import LIMIT_S, Recovery, recoveries
from chaos.renewals import Data, Team
from chaos.schedule import HOLDOUT, TRAIN, Fault, Schedule
from chaos.stack import ORPHAN_AGE_S, PROCESSES, Stack
from chaos.waiting import wait
from devstack import local

SHARED = 10
"""Number of schedules that share a stand."""

QUIET_S = 120.0
"""Time, plus three leases, for all open work to finish once the faults have stopped."""

SWEPT_S = 4.0 * ORPHAN_AGE_S
"""Time to remove what dead processes left behind, once all work is done."""

OPEN = """
    SELECT 'job' AS kind, id::text FROM jobs WHERE status IN ('queued', 'running')
    UNION ALL SELECT 'request', id::text FROM deletion_requests
    WHERE status IN ('pending', 'scheduled', 'running')
    UNION ALL SELECT 'target', request_id || ' ' || model_id FROM deletion_targets
    WHERE status IN ('pending', 'scheduled', 'running')
    UNION ALL SELECT 'purge', id::text FROM model_versions
    WHERE status = 'superseded' AND purged_at IS NULL AND purge_after <= now()
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """The dataset and models that deletion requests are about."""

    data: Data
    models: tuple[str, str]
    train_ids: Sequence[str]
    holdout_ids: Sequence[str]

    def fresh(self, turn: int) -> list[str]:
        """The samples that the current schedule may name."""
        return [
            *self.train_ids[turn * TRAIN : (turn + 1) * TRAIN],
            *self.holdout_ids[turn * HOLDOUT : (turn + 1) * HOLDOUT],
        ]


@dataclass(frozen=True, slots=True)
class Played:
    """The result of one schedule."""

    schedule: Schedule
    clients: int
    accepted: int
    """Number of requests answered with 202."""

    offered: int
    """Number of versions and states that teams registered."""

    taken: int
    """How many of them are, or were, served or indexed."""

    posts: int
    recoveries: list[Recovery]
    violations: list[Violation]
    seconds: float
    settling_s: float
    """The part of them from the last fault until all work was done."""


@dataclass(slots=True)
class Player:
    """A stack, and everything promised in it so far."""

    stack: Stack
    stand: Stand | None = None
    turn: int = 0
    promises: list[Promise] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    known: set[Violation] = field(default_factory=set)
    """Violations of earlier schedules, so that each is reported once."""

    stuck: set[tuple[str, str]] = field(default_factory=set)
    """Work that earlier schedules left open for good: it is not waited for again."""

    def play(self, schedule: Schedule) -> Played:
        """Run the schedule, wait until all work is done, and check."""
        if self.stand is None or self.turn == SHARED:
            self.stand, self.turn = _build(self.stack, seed=schedule.seed), 0
        started = time.monotonic()
        samples, stand = self.stand.fresh(self.turn), self.stand
        self.turn += 1
        clients = [
            client(self.stack, each, samples, dataset=stand.data.name, models=stand.models)
            for each in schedule.submissions
        ]
        teams = [Team(self.stack, each, stand.data, stand.models) for each in schedule.renewals]
        self.promises += [each.promise for each in clients]
        deaths = _let_happen(self.stack, schedule, clients, teams)
        settled = time.monotonic()
        self._wait_until_quiet()
        settling_s = time.monotonic() - settled
        for each in clients:
            if each.promise.request_id is not None:
                each.ask_again()
                each.look()
        offers = [sending.offer for team in teams for sending in team.sent]
        self.offers += offers
        for team in teams:
            team.ask_again()
        with psycopg.connect(self.stack.database_url, row_factory=dict_row) as connection:
            found = checker.check(connection, self.stack.store, self.promises, self.offers)
            recovered = recoveries(connection, deaths)
            taken = _taken(connection, offers)
        found += [
            Violation("recovery_slow", f"job {each.death.job_id}: {each.seconds} s")
            for each in recovered
            if each.seconds is None or each.seconds > LIMIT_S
        ]
        new = [violation for violation in found if violation not in self.known]
        self.known.update(new)
        return Played(
            schedule,
            len(clients),
            sum(each.promise.request_id is not None for each in clients),
            len(offers),
            taken,
            sum(each.promise.times for each in clients),
            recovered,
            new,
            time.monotonic() - started,
            settling_s,
        )

    def _wait_until_quiet(self) -> None:
        """Return when nothing is open or left over, or time is up; the checker reports the rest."""
        url, store = self.stack.database_url, self.stack.store
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:

            def is_open() -> set[tuple[str, str]]:
                return {(row["kind"], row["id"]) for row in connection.execute(OPEN)}

            wait(QUIET_S + 3 * self.stack.lease_s, lambda: is_open() <= self.stuck, every_s=0.2)
            self.stuck |= is_open()
            wait(SWEPT_S, lambda: {*files.left_over(connection, store)} <= self.known, every_s=0.2)


def _taken(connection: psycopg.Connection[dict[str, Any]], offers: Sequence[Offer]) -> int:
    ready = connection.execute(
        "SELECT id FROM version_registrations WHERE status = 'ready' "
        "UNION ALL SELECT id FROM dataset_states WHERE status = 'ready'"
    )
    ids = {row["id"] for row in ready}
    return sum(offer.registration_id in ids for offer in offers)


def _build(stack: Stack, *, seed: int) -> Stand:
    """Register a dataset and two models, and wait until they are ready."""
    name = f"chaos-{uuid4().hex[:8]}"
    written = samples.write(stack.home.state / "data" / name, seed=seed)
    user = local.Client(stack.home)
    with user.http:
        columns = {"sample_id": "sample_id", "input": "input", "label": "label", "split": "split"}
        dataset = {
            "name": name,
            "uri": written.dataset.as_uri(),
            "kind": "features",
            "columns": columns,
            "input_shape": [samples.FEATURES],
        }
        rows = [user.settled(user.post("/v1/datasets", dataset))]
        models = (f"{name}-first", f"{name}-second")
        bodies = [_model(models[0], name, written), _model(models[1], name, written, grace="PT0S")]
        places = [user.post("/v1/models", body) for body in bodies]
        rows += [user.settled(place) for place in places]
    for row in rows:
        if row["status"] != "ready":
            raise RuntimeError(f"{row['name']} is {row['status']}: {row['failure']}")
    data = Data(name, written.dataset.parent, written.table)
    return Stand(data, models, written.train_ids, written.holdout_ids)


def _model(name: str, dataset: str, written: samples.Files, **more: str) -> dict[str, object]:
    """Jobs of one round only. The files of a model without a grace go as soon as they may."""
    return {
        "name": name,
        "dataset": dataset,
        "weights": written.weights.as_uri(),
        "architecture": {"kind": "python", "factory": samples.FACTORY},
        "head": "head",
        "policy": {
            "escalation": [],
            "reservoir_samples": 200,
            "evaluation_samples": 200,
            "batch": {"window": "PT0S"},
            **more,
        },
    }


def _let_happen(
    stack: Stack, schedule: Schedule, clients: Sequence[Client], teams: Sequence[Team]
) -> list[Death]:
    """Start every fault, client and team at its time; return when all have ended."""
    started = time.monotonic()
    deaths: list[Death] = []
    broken: list[BaseException] = []

    def at(moment: float, act: Callable[[], Death | None]) -> threading.Thread:
        def wait_and_act() -> None:
            time.sleep(max(started + moment - time.monotonic(), 0))
            try:
                death = act()
            except BaseException as error:  # raised again below, in the main thread
                broken.append(error)
                return
            if death is not None:
                deaths.append(death)

        return threading.Thread(target=wait_and_act, daemon=True)

    def strikes(fault: Fault) -> Callable[[], Death | None]:
        return lambda: strike(stack, fault)

    threads = [at(fault.at, strikes(fault)) for fault in schedule.faults]
    threads += [at(each.submission.at, each.run) for each in clients]
    threads += [at(each.renewal.at, each.run) for each in teams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    for name in PROCESSES:
        stack.start_again(name)
    stack.home.wait_until_ready()
    return deaths
