"""What the command says when it cannot tell; the drill is in `end_to_end/test_restore.py`."""

import os

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from worker.restore.__main__ import app


@pytest.fixture
def lethe(monkeypatch, tmp_path, servers, own_database_url):
    """Run a command in beat's environment; by keyword, what is different, None for what is not
    there."""
    (tmp_path / "outside").mkdir()
    plain = make_url(own_database_url).set(drivername="postgresql")
    environment = {
        "LETHE_DATABASE_URL": plain.render_as_string(hide_password=False),
        "LETHE_BROKER_URL": servers.broker_url,
        "LETHE_STORE": str(tmp_path / "store"),
        "LETHE_SUPPRESSION_DIRECTORY": str(tmp_path / "outside"),
    }

    def run(*arguments, **changes):
        for name in [name for name in os.environ if name.startswith("LETHE_")]:
            monkeypatch.delenv(name)
        for name, value in (environment | changes).items():
            if value is not None:
                monkeypatch.setenv(name, value)
        return CliRunner().invoke(app, [*arguments])

    return run


def test_nothing_came_back_to_an_empty_database(lethe):
    result = lethe()

    assert result.exit_code == 0
    assert "Nothing came back." in result.output


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({"LETHE_STORE": None}, [], "LETHE_STORE"),
        ({"LETHE_SUPPRESSION_DIRECTORY": None}, [], "LETHE_SUPPRESSION_DIRECTORY"),
        ({}, ["--apply"], "LETHE_ADMIN_KEY"),
        ({}, ["--directory", "/not/there"], "/not/there"),
        ({"LETHE_DATABASE_URL": "postgresql://127.0.0.1:1/none"}, [], "database"),
        ({}, ["--unknown"], "No such option"),
    ],
)
def test_what_it_lacks_is_named_and_the_exit_code_is_2(lethe, changes, arguments, said):
    result = lethe(*arguments, **changes)

    assert result.exit_code == 2
    assert said in result.output
