"""Wrong settings are told in sentences, and none of them is repeated."""

import os
import subprocess
import sys

import pytest

from devstack.local import REPOSITORY
from domain import environment
from domain.settings import ApiSettings, MigrationSettings, WorkerSettings
from service.app import from_environment

MARKER = "MARKER"
GOOD = {
    "LETHE_DATABASE_URL": f"postgresql://u:{MARKER}-db@127.0.0.1:1/db",
    "LETHE_BROKER_URL": f"redis://:{MARKER}-broker@127.0.0.1:1/0",
    "LETHE_ADMIN_KEY": f"{MARKER}-key-of-the-admin",
    "LETHE_STORE": "/nowhere",
}
WRONG = [
    *(
        ("LETHE_DATABASE_URL", value)
        for value in (
            "", MARKER, f"mysql://u:{MARKER}@h/db", f"postgresql+asyncpg://u:{MARKER}@h/db",
            f"postgresql://u:{MARKER}@x@h/db", f"postgresql://u:a@{MARKER}@h/db",
            f"postgresql://u:a/{MARKER}@h/db", f"postgresql://u:12/{MARKER}@h/db",
            f"postgresql://u:%{MARKER}@h/db", f"postgresql://u:{MARKER}@h:port/db",
            f"postgresql://u:{MARKER}@h/db?{MARKER.lower()}=1@x",
            f"postgresql://u:{MARKER}@h/db?sslmode={MARKER}",
            f"postgresql://u:{MARKER}@h/db?unknown={MARKER}",
            f"postgresql://u:{MARKER}@h/db?client_encoding=latin1",
            f"postgresql://u:{MARKER}@h/db?connect_timeout={MARKER}",
            f"postgresql://u:{MARKER}@h/db\n", f" postgresql://u:{MARKER}@h/db",
            f"postgresql://u:{MARKER}\udcff@h/db", f"host=h password={MARKER}",
        )
    ),
    *(
        ("LETHE_BROKER_URL", value)
        for value in (
            "", MARKER, f"amqp://u:{MARKER}@h", f"sentinel://:{MARKER}@h:26379",
            f"redis://:a/{MARKER}@h", f"redis://:12/{MARKER}@h", f"redis://:a#{MARKER}@h",
            f"redis://:a?{MARKER}@h", f"redis://:%{MARKER}@h", f"redis://:{MARKER}@h:port/0",
            f"redis://:{MARKER}@h/{MARKER}", f"redis://:{MARKER}@h/0?{MARKER}=1",
            f"redis://h/0?password={MARKER}", f"redis://:{MARKER}@h/0?ssl_cert_reqs=none",
            f"rediss://:{MARKER}@h/0?ssl_cert_reqs={MARKER}", f"redis://:{MARKER}@a,b/0",
            f"redis://:{MARKER}@a;redis://:{MARKER}@b", f"redis://:{MARKER}[@h", "unix://",
            f"redis://:{MARKER}@h/0\n", f"redis://:{MARKER}@h/1?db=2", f"redis://:%ff{MARKER}@h",
        )
    ),
    *(
        ("LETHE_ADMIN_KEY", value)
        for value in ("", f"{MARKER}-short", f"{MARKER}-with-a-newline-at-its-end\n",
                      f"{MARKER} with spaces in it", f"{MARKER}-é-is-not-ascii")
    ),
    *(
        ("LETHE_SIGNING_KEYS", value)
        for value in (
            MARKER, f'"{MARKER}"', f'[{{"{MARKER}": 1}}]', f'[{{"uri": ["{MARKER}"]}}]',
            f'[{{"uri": "file:/x", "{MARKER}": "{MARKER}"}}]', f'[{{"uri": "{MARKER}}}]',
        )
    ),
    *(
        (name, value)
        for name in ("LETHE_ANCHOR_WEBHOOK", "LETHE_ANCHOR_TSA")
        for value in (f"ftp://u:{MARKER}@h", f"https://u:{MARKER}@", MARKER)
    ),
    ("LETHE_LEASE", MARKER), ("LETHE_LEASE", "PT1S"), ("LETHE_DEVICE", MARKER),
    ("LETHE_MAX_BODY_BYTES", MARKER), ("LETHE_DATA_ROOTS", MARKER), ("LETHE_LOG_FORMAT", MARKER),
    ("LETHE_LOG_ORIGIN", f"{MARKER} +"),
    ("LETHE_JOB_KINDS", MARKER), ("LETHE_JOB_KINDS", f'["unlearn", "{MARKER}"]'),
    ("LETHE_JOB_KINDS", "[]"),
]  # fmt: skip


class EverySetting(ApiSettings, WorkerSettings):
    """Of all processes."""


@pytest.fixture
def good(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LETHE_")]:
        monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_named_and_not_repeated(good, monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    with pytest.raises(environment.Unusable) as refused:
        environment.read(EverySetting)

    told = str(refused.value)
    assert MARKER not in told.upper()
    assert told.splitlines()[0].startswith(name)
    assert told.splitlines()[-1] == environment.WHERE
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_all_that_is_missing_is_named_at_once(good, monkeypatch):
    for name in GOOD:
        monkeypatch.delenv(name)

    with pytest.raises(environment.Unusable) as refused:
        environment.read(ApiSettings)

    assert {line.split()[0] for line in str(refused.value).splitlines()[:-1]} == GOOD.keys()


def test_settings_show_no_secret(good, monkeypatch):
    monkeypatch.setenv("LETHE_ANCHOR_WEBHOOK", f"https://u:{MARKER}@h/x")
    monkeypatch.setenv("LETHE_SIGNING_KEYS", f'[{{"uri": "hv:{MARKER}"}}]')

    settings = environment.read(EverySetting)

    assert MARKER not in repr(settings)
    assert MARKER not in str(settings)


WORKER = ["celery", "--quiet", "--app", "worker.tasks", "worker", "--pool=threads"]
MIGRATIONS = ["alembic", "upgrade", "head"]


def run(*program):
    """A program in a process of its own, with the settings as they are."""
    return subprocess.run(
        [sys.executable, "-m", *program], cwd=REPOSITORY, env=dict(os.environ),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_worker_ends_with_the_sentences_alone(good, monkeypatch):
    monkeypatch.setenv("LETHE_DATABASE_URL", f"postgresql://u:a/{MARKER}@h/db")
    monkeypatch.setenv("LETHE_BROKER_URL", f"redis://:a/{MARKER}@h")

    ended = run(*WORKER)

    told = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode == 1
    assert [line.split()[0] for line in told[:2]] == ["LETHE_DATABASE_URL", "LETHE_BROKER_URL"]
    assert told[2:] == [environment.WHERE]


def test_the_api_ends_with_the_sentences_alone(good, monkeypatch):
    monkeypatch.setenv("LETHE_ADMIN_KEY", f"{MARKER}-short")

    with pytest.raises(SystemExit, match=r"^LETHE_ADMIN_KEY must be 16 or more") as ended:
        from_environment()

    assert isinstance(ended.value.code, str)  # printed, with exit status 1


def test_migrations_say_why_they_cannot_connect(good):
    """The password masked, the host shown."""
    ended = run(*MIGRATIONS)

    assert ended.returncode == 1
    assert "postgresql://u:***@127.0.0.1:1/db (unreachable)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert MARKER not in ended.stdout + ended.stderr


def test_what_migrations_do_not_need_they_do_not_ask_for(good, monkeypatch):
    for name in GOOD.keys() - {"LETHE_DATABASE_URL"}:
        monkeypatch.delenv(name)

    assert (
        environment.read(MigrationSettings).database_url.get_secret_value()
        == GOOD["LETHE_DATABASE_URL"]
    )
