"""Which service the command line calls, with which key, and what happens without an answer."""

import stat

from lethe.retrying import Retries
from tests.conftest import KEY
from tests.lethe.fakes import hangs_up, problem, sends


def test_login_stores_a_key_that_works_for_this_user_alone(command, service, home, typed):
    typed(f"{KEY}\n")
    said = command("login", service.url)
    file = home / "config/lethe/credentials.json"

    assert (said.status, said.err) == (0, "")
    assert service.url in said.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert command("model", "list").status == 0
    assert command("logout", "--json").json == {"deleted": True}
    assert not file.exists()
    assert command("model", "list").status == 2


def test_login_takes_a_key_from_a_file_and_refuses_a_wrong_one(command, service, home):
    (home / "key").write_text(f"{KEY}\n")
    (home / "wrong").write_text("another-key-than-that")

    assert command("login", service.url, "--key-file", home / "wrong").status == 3
    assert not (home / "config/lethe").exists()
    assert command("login", service.url, "--key-file", home / "missing").status == 2
    assert command("login", service.url, "--key-file", home / "key").status == 0


def test_a_key_is_never_an_argument(command, service):
    assert command("login", service.url, KEY.replace("-", "_")).status == 2


def test_a_stored_key_goes_to_no_other_service(command, service, typed, fake):
    typed(KEY)
    command("login", service.url)
    said = command("--url", fake.url, "model", "list")

    assert said.status == 2
    assert "no key for" in " ".join(said.err.split())
    assert fake.received == []


def test_a_key_that_others_may_read_is_not_used(command, service, home, typed):
    typed(KEY)
    command("login", service.url)
    (home / "config/lethe/credentials.json").chmod(0o644)

    said = command("model", "list")

    assert said.status == 2
    assert "chmod 600" in said.err


def test_the_environment_comes_before_what_is_stored(command, service, typed, monkeypatch):
    typed(KEY)
    command("login", service.url)
    monkeypatch.setenv("LETHE_API_KEY", "another-key-than-that")

    said = command("model", "list", "--json")

    assert said.status == 3
    assert said.json["error"]["type"] == "urn:lethe:problem:unauthorized"
    assert said.json["error"]["exit_status"] == 3


def test_a_key_is_not_sent_over_plain_http(command, monkeypatch):
    monkeypatch.setenv("LETHE_URL", "http://lethe.example.com")
    monkeypatch.setenv("LETHE_API_KEY", KEY)

    said = command("model", "list")

    assert said.status == 2
    assert "--insecure" in said.err


def test_no_answer_has_a_status_of_its_own(command, fake, monkeypatch):
    monkeypatch.setattr(Retries, "pause", lambda *_: None)
    monkeypatch.setenv("LETHE_URL", fake.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    for reply in (
        hangs_up,
        problem(503, "unavailable"),
        sends(302, Location="https://elsewhere.example.com"),
        sends(200, b"<html>a proxy</html>"),
        sends(500, b"oops"),
    ):
        fake.answers(reply)
        said = command("model", "show", "cnn")
        machine = command("model", "show", "cnn", "--json")

        assert said.status == machine.status == 4
        assert said.err.startswith("Error: ")
        assert machine.json["error"]["exit_status"] == 4
    monkeypatch.setenv("LETHE_URL", "http://127.0.0.1:1")
    assert command("model", "list").status == 4


def test_an_address_with_a_password_is_refused_and_not_repeated(command, monkeypatch):
    for key in (None, "a-key"):
        for url in ("http://u:MARKER@127.0.0.1:1", "https://u:MARKER@h:port", "http://[MARKER"):
            monkeypatch.setenv("LETHE_URL", url)
            if key:
                monkeypatch.setenv("LETHE_API_KEY", key)
            else:
                monkeypatch.delenv("LETHE_API_KEY", raising=False)

            said = command("dataset", "list")

            assert said.status == 2
            assert "MARKER" not in said.out + said.err
