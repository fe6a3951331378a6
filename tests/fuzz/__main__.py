"""`make fuzz`: ask a service of its own many times, and tell what it should not answer."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config

from devstack import local
from tests.fuzz.run import fuzzed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    structlog.configure(processors=[structlog.processors.JSONRenderer()])  # no tracebacks drawn
    with tempfile.TemporaryDirectory() as state, local.servers(Path(state)) as servers:
        os.environ["LETHE_DATABASE_URL"] = servers.owner_url
        command.upgrade(Config(local.REPOSITORY / "alembic.ini"), "head")
        findings = fuzzed(
            servers.database_url,
            servers.broker_url,
            Path(state),
            cases=chosen.cases,
            number=chosen.seed,
        )
    sys.stdout.write(findings.report() + "\n")
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
