"""Every route that takes a location refuses those that name no file, with a problem document."""

import os

import pytest
from sqlalchemy import func, select

from domain.states import JobKind
from domain.tables import Job

INVALID = "invalid-request"
REFUSED = "location-refused"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "away").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("location", "problem_kind"),
    [
        ("{root}/\0", INVALID),
        ("file://{root}/%00", REFUSED),
        ("file://{root}/%2500%00", REFUSED),
        ("file://{root}/%0d%0a", REFUSED),
        ("file://{root}/%ff", REFUSED),
        ("file://{root}/%2e%2e/%2e%2e/etc/passwd", REFUSED),
        ("file://{root}/..%2f..%2fetc/passwd", REFUSED),
        ("file://{root}/%zz", REFUSED),
        ("file://host{root}/x", REFUSED),
        ("file:x", REFUSED),
        ("{root}\\x", REFUSED),
        ("{root}/loop", REFUSED),
        ("{root}/loop/x", REFUSED),
        ("{root}/away", REFUSED),
        ("{root}/pipe", REFUSED),
        ("{root}/" + "x" * 300, REFUSED),
        ("{root}/" + "é/" * 1400, REFUSED),
        ("/" + "é" * 4095, REFUSED),
        ("/" * 4097, INVALID),
        ("file://[", INVALID),
    ],
)
async def test_no_route_follows_it(client, model, sessions, root, problem, location, problem_kind):
    location = location.replace("{root}", str(root))
    columns = {"sample_id": "id", "input": "x", "label": "y", "split": "s"}
    architecture = {"kind": "transformers"}
    for path, body in {
        "datasets": {"name": "d", "uri": location, "kind": "image", "columns": columns},
        "datasets/digits/check": {"uri": location, "column": "id"},
        "models": {
            "name": "m", "dataset": "digits", "weights": location, "head": "fc",
            "architecture": architecture,
        },
    }.items():  # fmt: skip
        problem(await client.post(f"/v1/{path}", json=body), 422, problem_kind)
    async with sessions() as session:
        queued = select(func.count(Job.id)).where(Job.kind != JobKind.REGISTER_MODEL)
        assert await session.scalar(queued) == 0
