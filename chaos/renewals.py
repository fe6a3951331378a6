"""Teams whose models live: they register new states of their dataset, and versions of a model that
they trained themselves on what may be trained on. Each is a thread."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chaos import samples
from chaos.calling import GIVE_UP_S, PAUSE_S, Caller
from chaos.promise import Offer
from chaos.schedule import Renewal
from chaos.stack import Stack

TRIES = 4
"""How often a team trains anew."""


@dataclass(slots=True)
class Data:
    """A dataset as its team has it; states follow each other."""

    name: str
    folder: Path
    table: pa.Table
    state: int = 1


class Sending:
    """One offer on its way."""

    def __init__(self, stack: Stack, offer: Offer, path: str, body: dict[str, object]) -> None:
        self.offer = offer
        self._caller, self._path, self._body = Caller(stack, offer), path, body

    def send(self) -> None:
        """Send it until it is accepted."""
        response = self._caller.until_accepted(self._path, self._body)
        if response is not None:
            place = urlsplit(response.headers["location"]).path
            with self.offer.lock:
                self.offer.answers.add(place.encode())  # how far it is differs
                self.offer.place = place

    def send_at_once(self, copies: int) -> None:
        self._caller.at_once(copies, self.send)

    def ask_again(self) -> None:
        """Check that the key still gives its answer, and that what it stands for is there."""
        if self.offer.place is not None:
            self.send()
            self._caller.require_found(self.offer.place)

    def is_ready(self) -> bool:
        """Whether it was taken, once that is decided."""
        deadline = time.monotonic() + GIVE_UP_S
        while self.offer.place is not None and time.monotonic() < deadline:
            response = self._caller.patiently("GET", self.offer.place)
            if response is None or response.status_code != 200:
                return False
            status = response.json()["status"]
            if status != "pending":
                return bool(status == "ready")
            time.sleep(PAUSE_S)
        return False


class Team:
    """One renewal, from the new state to the new version."""

    def __init__(self, stack: Stack, renewal: Renewal, data: Data, models: Sequence[str]) -> None:
        self.stack = stack
        self.renewal = renewal
        self.data = data
        self.model = models[1 if renewal.of_second else 0]
        self.sent: list[Sending] = []

    def run(self) -> None:
        """Register the state and wait until it is indexed; then train, and register the version.
        What was forgotten meanwhile may speak against it: then who takes care trains anew."""
        if self.renewal.moves_on and not self._moved_on():
            return
        for _ in range(1 if self.renewal.careless else TRIES):
            if self._trained_anew().is_ready():
                return

    def _trained_anew(self) -> Sending:
        """Train on what may be trained on, and register what comes of it."""
        rows = self.data.table.filter(pc.equal(self.data.table["split"], "train"))
        if not self.renewal.careless:
            rows = self._without_suppressed(rows)
        mine = uuid4().hex[:8]
        ids, weights = (self.data.folder / f"{mine}.{kind}" for kind in ("parquet", "safetensors"))
        pq.write_table(rows, ids)
        samples.train(rows, weights, seed=len(rows))
        offer = Offer(str(uuid4()), self.model, frozenset(rows["sample_id"].to_pylist()))
        body = {
            "weights": weights.as_uri(),
            "trained_on": {"uri": ids.as_uri(), "column": "sample_id"},
            "accept_memory": True,  # whether an audit finds something is not asked here
        }
        return self._send(offer, f"/v1/models/{self.model}/versions", body)

    def ask_again(self) -> None:
        """Check that each key still gives its answer."""
        for sending in self.sent:
            sending.ask_again()

    def _moved_on(self) -> bool:
        """Register the next state; whether it is the one that is indexed now."""
        data, number = self.data, self.data.state + 1
        table = samples.next_state(data.table, number)
        file = data.folder / f"points-{number}-{uuid4().hex[:8]}.parquet"
        pq.write_table(table, file)
        ids = frozenset(table["sample_id"].to_pylist())
        offer = Offer(str(uuid4()), data.name, ids, is_state=True)
        sending = self._send(offer, f"/v1/datasets/{data.name}/states", {"uri": file.as_uri()})
        if not sending.is_ready():
            return False  # the checker finds out why
        data.table, data.state = table, number
        return True

    def _without_suppressed(self, rows: pa.Table) -> pa.Table:
        """As who asks beforehand what may be trained on."""
        asked: dict[str, object] = {"sample_ids": rows["sample_id"].to_pylist()}
        nothing = Offer("", self.model, frozenset())
        answer = Caller(self.stack, nothing).patiently(
            "POST", f"/v1/datasets/{self.data.name}/check", asked
        )
        suppressed = pa.array(answer.json()["suppressed"] if answer else [], pa.string())
        return rows.filter(pc.invert(pc.is_in(rows["sample_id"], suppressed)))

    def _send(self, offer: Offer, path: str, body: dict[str, object]) -> Sending:
        sending = Sending(self.stack, offer, path, body)
        self.sent.append(sending)
        sending.send_at_once(self.renewal.copies)
        return sending
