"""Commands in the documents are run as written, in order, against a real stack."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack import local
from tests.docs.documents import PAGES, Block, blocks, name

URL = "http://127.0.0.1:8321"
"""Where `make up` serves; the stack of this test is elsewhere."""

BEGIN = "docs/quickstart.md"
"""The other documents go on from here."""

ORDER = ["README.md", BEGIN, "docs/auditors.md", "docs/privacy-teams.md", "docs/ml-teams.md",
         "docs/api.md", "docs/client.md", "docs/operators.md"]  # fmt: skip
"""One that shreds a request comes after those that look at it."""

SHOWN = {
    "README.md": ["completed", "VALID: every check passed."],
    BEGIN: ["completed", "champion", "VALID: every check passed.", "digits/0001"],
    "docs/auditors.md": ["request.received", "request.completed", "VALID: every check passed."],
    "docs/privacy-teams.md": ['"commitment":', "shredded"],
    "docs/ml-teams.md": ["approximate", "digits/0001"],
    "docs/api.md": ['"status":"cancelled"', "urn:lethe:problem:unknown-samples", '"unlearn"'],
    "docs/client.md": ["cancelled", "walk-cnn", "lethe 0."],
    "docs/operators.md": ['"status":"ready"', "lethe_requests_overdue"],
}
"""What each document's commands print, among other things."""

REFUSED = {"docs/api.md": [422]}
"""Statuses of refusals that a document shows on purpose."""

# Python finds the programs that a reader has on the PATH by then; refusals are told apart.
PROLOGUE = """set -euo pipefail
curl() { command curl -w '%{stderr}HTTP %{http_code}\\n' "$@"; }
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Stack]:
    state = tmp_path_factory.mktemp("docs") / ".lethe"
    with local.stack(
        state,
        LETHE_DATA_ROOTS=json.dumps([str(state / "data")]),
        LETHE_FACTORIES='["devstack.demo.digits:cnn"]',
        LETHE_SWEEP_INTERVAL="PT1S",
        LETHE_POLL_INTERVAL="PT2S",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def play(home: local.Stack) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run all commands of a document, once, in a checkout whose `.lethe` is that of the stack."""
    checkout = home.state.parent
    for entry in local.REPOSITORY.iterdir():
        if entry.name not in (".lethe", ".git"):
            (checkout / entry.name).symlink_to(entry)
    environment = {
        **os.environ,
        "PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(checkout / "home"),
        "XDG_CONFIG_HOME": str(checkout / "home"),
        "COLUMNS": "200",
    }
    played: dict[str, subprocess.CompletedProcess[str]] = {}

    def run(page: str) -> subprocess.CompletedProcess[str]:
        if page not in ("README.md", BEGIN):
            run(BEGIN)
        if page not in played:
            played[page] = subprocess.run(
                ["bash", "-c", script(page).replace(URL, home.url)],
                cwd=checkout, env=environment, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
        return played[page]

    return run


def script(page: str) -> str:
    """The commands of a document as one script that stops at the first failure."""
    return PROLOGUE + "\n".join(
        f"echo '== {block}' >&2\n{_as_bash(block)}" for block in commands(page)
    )


def commands(page: str) -> list[Block]:
    found = blocks(local.REPOSITORY / page)
    return [block for block in found if block.language in ("bash", "python")]


def _as_bash(block: Block) -> str:
    if block.language == "bash":
        return block.text
    return f"python -W error - <<'END_OF_SNIPPET'\n{block.text}END_OF_SNIPPET\n"


def test_every_document_with_commands_is_run():
    assert {name(page) for page in PAGES if commands(name(page))} == set(ORDER) == set(SHOWN)


@pytest.mark.parametrize("page", ORDER)
def test_the_commands_of_a_document_work_as_they_stand(play, page):
    done = play(page)

    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    for text in SHOWN[page]:
        assert text in done.stdout, done.stdout[-4000:]
    refused = [
        int(status) for status in re.findall(r"^HTTP ([45]\d\d)$", done.stderr, re.MULTILINE)
    ]
    assert sorted(refused) == REFUSED.get(page, []), done.stderr


def test_every_metric_is_explained_to_operators(play, home):
    metrics = set(re.findall(r"^(lethe_\w+)", play("docs/operators.md").stdout, re.MULTILINE))
    page = Path(local.REPOSITORY / "docs" / "operators.md").read_text()

    assert len(metrics) > 10
    assert {metric for metric in metrics if f"`{metric}" not in page} == set()
