"""What the demo asks to be forgotten: one person's records, which a network knows by heart.

Handwritten digits were typed in carelessly: two labels in five are wrong, in training, hold-out
and test records alike. A wrong label can only be learned by heart, and the network was trained
until it knew nearly all of them. Then a person wants the records that are theirs to be forgotten.
These are drawn at random from the training records, so they are of no other kind than those the
network never saw: whatever tells the two apart is memory.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.torch import load, save_model
from torch import nn

from devstack.demo import digits

WRONG = 0.4
"""Share of the labels that are wrong."""

PERSON = 30
"""Training records of the person who wants to be forgotten."""

WIDTH, EPOCHS = 64, 40
"""Wide enough, and trained for long enough, to know nearly all training labels by heart."""


@dataclass(frozen=True, slots=True)
class Case:
    """The files that the service is given, and what it is asked for."""

    records: Path
    """Parquet: `sample_id`, `image`, `label` and `split`."""

    weights: Path
    """Safetensors of `digits.cnn(WIDTH)`."""

    person: tuple[str, ...]
    """Ids of the training records to forget."""

    def sureness(self, weights: bytes) -> tuple[list[float], list[float]]:
        """How sure a version is of the labels on file: of the person's records, and of the test
        records, which no version was ever trained on.

        Args:
            weights: of the version, as safetensors.

        Returns:
            The probability of each record's label, as log-odds in nats.
        """
        table = pq.read_table(self.records)
        mine = pc.is_in(table["sample_id"], pa.array(self.person))
        unseen = pc.equal(table["split"], "test")
        model = digits.cnn(WIDTH)
        model.load_state_dict(load(weights))
        return _log_odds(model, table.filter(mine)), _log_odds(model, table.filter(unseen))


def prepare(folder: Path, *, seed: int) -> Case:
    """Write the records, train the network on them, and draw the person's records.

    On one machine the same seed gives the same files. They are replaced whole, so that a run that
    is interrupted leaves nothing half written.
    """
    records, weights, unfinished = (
        folder / name for name in ("records.parquet", "network.safetensors", "unfinished")
    )
    digits.write_dataset(unfinished, seed=seed, wrong=WRONG)
    unfinished.replace(records)
    torch.set_num_threads(1)  # so small a network trains hardly sooner with more, and where other
    # programs keep the cores busy, threads that wait for each other take many times as long
    model = digits.train(records, width=WIDTH, epochs=EPOCHS, seed=seed)
    save_model(model, str(unfinished))
    unfinished.replace(weights)
    train = pq.read_table(records, filters=[("split", "=", "train")])["sample_id"].to_pylist()
    drawn = np.random.default_rng(seed).choice(train, PERSON, replace=False)
    return Case(records, weights, tuple(sorted(drawn.tolist())))


def _log_odds(model: nn.Module, table: pa.Table) -> list[float]:
    """Of the labels on file, in the order of the table."""
    images, labels = digits.tensors(table)
    with torch.no_grad():
        logits = model.eval()(images).double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    odds: list[float] = (own - others).tolist()
    return odds
