"""Every fenced block is run, checked, or listed here as one that cannot be."""

import json
import re

import jsonschema
import pytest

from devstack.docs import interface
from lethe import WebhookEvent
from tests.docs.documents import PAGES, Block, blocks, name

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = {"bash", "python"}
CHECKED = {"json", "mermaid"}
SHOWN = {"text"}
"""Output: no command stands in it."""

NOT_RUN = {
    "CONTRIBUTING.md": ["make check", ".venv/bin/python -m pytest tests/service -q"],
    "README.md": ["make demo", "make test"],
    "docs/operators.md": [
        'LETHE_JOB_KINDS=["unlearn","erase_rows","purge"]',
        "docker/new-env.sh",
        "psql --dbname lethe --file migrations/roles.sql",
        "ALTER ROLE lethe_owner LOGIN PASSWORD '…';",
        "[pgbouncer]",
        "ALTER ROLE lethe_api SET statement_timeout = '60s';",
        "openssl genpkey -algorithm ed25519 -out signing-key.pem",
        "python -m worker.restore",
        "docker compose exec beat python -m worker.restore",
    ],
    "docs/privacy-teams.md": [
        "lethe subject lookup --from people.txt",
        'lethe decide ID accept --ground "The residual difference is negligible."',
        'lethe dataset lift DATASET --from ids.txt --reason "Consent of 12 March, ticket 4711" \\',
        "lethe cancel ID",
    ],
    "docs/quickstart.md": [
        "make up",
    ],
    "verifier/README.md": [
        "GET /v1/audit/bundle?request=<id>&since=<size of the checkpoint you kept>",
        "python -m pip install cryptography",
        "python verify.py log entries.jsonl --checkpoint now.txt --checkpoint kept.txt "
        "--key operator.pem",
    ],
}
"""The first lines of the commands in each document that need Docker, root, a prompt, a person's
decision, or more time than a test has. Each one that is here is one that nobody has run."""

COMMANDS = ("make ", "python ", "lethe ", "curl ", "docker ", ".venv/", "$ ")


def test_what_is_not_run_is_listed():
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        if block.language not in RUN | CHECKED | SHOWN:
            assert block.language in ("console", "ini", "sql"), (
                f"{block}: what is {block.language!r}?"
            )
            found.setdefault(block.page, []).append(block.text.partition("\n")[0])

    assert found == NOT_RUN


def test_no_command_hides_in_output():
    for block in BLOCKS:
        if block.language in SHOWN:
            lines = block.text.splitlines()
            assert not any(line.lstrip().startswith(COMMANDS) for line in lines), str(block)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=str)
def test_json_is_what_the_api_takes_or_gives(block: Block):
    kind, _, route = block.about.partition(" ")
    value = json.loads(block.text)

    match kind:
        case "request":
            _validate(value, _operation(route)["requestBody"])
        case "problem":
            _validate(value, _operation("POST /v1/deletion-requests")["responses"]["409"])
        case "event":
            WebhookEvent.model_validate(value)
        case _:
            pytest.fail(f"{block} does not say what its JSON is: `json request POST /v1/…`")


def test_routes_in_tables_exist():
    known = {f"{method} {path}" for method, path, _ in interface.operations()}
    for page in PAGES:
        for route in _routes(page.read_text()):
            assert route in known, f"{name(page)}: there is no {route}"


def _routes(text: str) -> list[str]:
    """What is written as `GET /v1/…` in a document, without its query."""
    found = re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^`\s]*)`", text)
    return [route.partition("?")[0] for route in found]


def _operation(route: str) -> dict:
    wanted = tuple(route.split())
    return next(
        operation for method, path, operation in interface.operations() if (method, path) == wanted
    )


def _validate(value: object, part: dict) -> None:
    """Hold a value against a body's schema."""
    (content,) = part["content"].values()
    document = interface.openapi()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)
