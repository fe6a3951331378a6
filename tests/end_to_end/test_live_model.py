"""A model's life: registered, asked to forget, trained anew elsewhere on later data, asked again
and deleted; and what an auditor can verify of it afterwards."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_model

from devstack.demo import digits
from lethe import Lethe, errors
from lethe.schemas.registrations import TrainedOnFile, VersionRegistration
from tests.broken_models import WIDTH
from tests.end_to_end import auditor

SIZES = {"train": 400, "holdout": 120, "test": 60}
"""A part of the digits, so that a job on them takes a second."""

POLICY = {"escalation": [], "grace": "PT0S", "reservoir_samples": 200, "evaluation_samples": 200}
FORGOTTEN = ("weights_sha256", "statistics_sha256", "reservoir_sha256")


@pytest.fixture
def lethe(home) -> Iterator[Lethe]:
    key = home.headers["Authorization"].removeprefix("Bearer ")
    with Lethe(home.url, key) as lethe:
        yield lethe


@pytest.fixture
def world(files: Path) -> SimpleNamespace:
    """The files of a team: what it has now, and what it will have next month."""
    every = pq.read_table(files / digits.DATASET)
    parts = {split: every.filter(pc.equal(every["split"], split)) for split in SIZES}
    name = f"live-{uuid4().hex[:8]}"
    now = pa.concat_tables(parts[split].slice(0, count) for split, count in SIZES.items())
    ids = parts["train"]["sample_id"].to_pylist()
    return SimpleNamespace(
        name=name,
        folder=files,
        now=now,
        ids=ids[: SIZES["train"]],
        come=parts["train"].slice(SIZES["train"], 20),
        path=files / f"{name}.parquet",
        later=files / f"{name}-later.parquet",
    )


def trained(world: SimpleNamespace, table: pa.Table, *, name: str) -> tuple[Path, Path]:
    """Weights that were trained on the training split of this table, and a file with just these
    rows."""
    rows = world.folder / f"{world.name}-{name}.parquet"
    pq.write_table(table.filter(pc.equal(table["split"], "train")), rows)
    weights = rows.with_suffix(".safetensors")
    save_model(digits.train(rows, width=WIDTH, epochs=40), str(weights))
    return weights, rows


def without(table: pa.Table, ids: list[str]) -> pa.Table:
    return table.filter(pa.array([name not in ids for name in table["sample_id"].to_pylist()]))


def test_a_model_lives_through_deletions_new_data_and_new_versions(
    client, lethe: Lethe, world: SimpleNamespace
):
    name, forgotten, left = world.name, world.ids[:6], world.ids[6]
    stays, goes = forgotten[:3], forgotten[3:]  # of what is forgotten, in the files of later

    # It is registered, and asked to forget.
    pq.write_table(world.now, world.path)
    row = client.register_dataset(name, world.path)
    assert row["status"] == "ready", row
    weights, _ = trained(world, world.now, name="first")
    row = client.register_model(name, weights, dataset=name, policy=POLICY)
    assert row["status"] == "ready", row
    first = client.request(name, forgotten)
    served = client.forgotten(first)["targets"][0]["result"]["version"]

    # The data moves on: some rows are gone, one of which the model knows; others came.
    later = pa.concat_tables([without(world.now, [*goes, left]), world.come])
    pq.write_table(later, world.later)
    state = lethe.wait(lethe.register_state(name, world.later.as_uri()))
    assert state.found is not None, state.failure
    assert (state.found.added, state.found.removed) == (20, 4)
    assert state.found.suppressed_still_there == 3
    assert state.found.still_known == {name: 1}
    waiting = client.request(name, [left])
    target = client.get(waiting)["targets"][0]
    assert (target["status"], target["former"], target["planned_for"]) == ("pending", 1, None)

    # The monthly retraining: on what is forgotten, it is refused; without that, it is served.
    weights, careful = trained(world, without(later, stays), name="next")

    def offer(rows: Path) -> VersionRegistration:
        trained_on = TrainedOnFile(uri=rows.as_uri(), column="sample_id")
        made = lethe.register_version(name, weights=weights.as_uri(), trained_on=trained_on)
        return lethe.wait(made)

    careless = world.folder / f"{name}-careless.parquet"
    pq.write_table(later.filter(pc.equal(later["split"], "train")), careless)
    refused = offer(careless)
    assert refused.status == "failed"
    assert "trained on 3 that this model has forgotten" in (refused.failure or "")
    assert client.get(f"/v1/models/{name}")["champion"]["number"] == served
    made = offer(careful)
    assert made.found is not None, made.failure
    assert (made.status, made.version, made.found.requests) == ("ready", served + 1, 1)
    assert made.found.trained_on == SIZES["train"] - 7 + 20
    answered = client.settled(waiting)
    assert answered["status"] == "completed"
    result = answered["targets"][0]["result"]
    assert (result["version"], result["mode"]) == (served + 1, "exact")

    # It is asked again, and no version is left but the one that forgot everything.
    second = client.request(name, [*world.ids[10:14], world.come["sample_id"][0].as_py()])
    assert client.forgotten(second)["targets"][0]["result"]["version"] == served + 2
    files = client.sql(
        f"SELECT {', '.join(FORGOTTEN)} FROM model_versions v JOIN models m ON m.id = model_id "
        "WHERE m.name = %s",
        name,
    )
    old = set(range(1, served + 2))
    client.wait(f"/v1/models/{name}/lineage", lambda lineage: purged(lineage) == old, timeout_s=60)
    assert {each["number"]: each["status"] for each in client.versions(name)} == {
        served + 2: "champion", **dict.fromkeys(old, "superseded"),
    }  # fmt: skip

    # It is deleted, once nobody asks it any more; the evidence stays.
    asked = client.request(name, [world.ids[20]], urgent=False)
    with pytest.raises(errors.Conflict, match="Deletion requests still ask"):
        lethe.delete_model(name)
    lethe.cancel_request(asked.rpartition("/")[2])
    wait_for_purges(client, name)
    gone = lethe.wait(lethe.delete_model(name))
    assert (gone.status, gone.champion) == ("deleted", None)
    store = Path(client.home.environment["LETHE_STORE"])
    others = {
        digest
        for each in client.sql(
            f"SELECT {', '.join(FORGOTTEN)} FROM model_versions WHERE purged_at IS NULL"
        )
        for digest in each.values()
    }
    mine = {digest for each in files for digest in each.values()} - others
    assert len(mine) >= 3 * (served + 2)
    assert [digest for digest in mine if list(store.rglob(digest))] == []
    for where in (first, waiting, second):
        assert auditor.verified(client, where) == (0, "valid")
    told = [
        event["event"]
        for event in client.sql(
            "SELECT event FROM audit_events WHERE subject_id = (SELECT id FROM models WHERE name = "
            "%s) ORDER BY id",
            name,
        )
    ]
    assert told[-2:] == ["model.deleted", "model.purged"]


def purged(lineage) -> set[int]:
    """The versions of which files are purged. The weights that a team brought stay its own."""
    return {item["version"] for item in lineage["items"] if item["purged_at"]}


def wait_for_purges(client, name: str) -> None:
    """Until no job works on the model any more."""
    query = (
        "SELECT j.id FROM jobs j JOIN models m ON m.id = model_id WHERE m.name = %s "
        "AND j.status IN ('queued', 'running')"
    )
    client.wait(f"/v1/models/{name}", lambda _: not client.sql(query, name))
