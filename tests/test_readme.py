"""The README's walk through the API, run as it stands, and its table of settings."""

import re
import subprocess

import pytest

from devstack import local
from domain.settings import ApiSettings, WorkerSettings

README = (local.REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def script():
    """The shell blocks of the README, in one script that stops at the first failure."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    return "set -euo pipefail\n" + "\n".join(blocks)


def test_the_walk_works_by_copy_and_paste(script, tmp_path):
    with local.stack(
        tmp_path,
        LETHE_DATA_ROOTS=f'["{tmp_path / "data"}"]',
        LETHE_FACTORIES='["devstack.demo.digits:cnn"]',
    ) as home:
        here = script.replace("http://127.0.0.1:8321", home.url)
        here = here.replace("'\"$PWD\"'/.lethe", str(tmp_path)).replace(".lethe", str(tmp_path))
        walk = subprocess.run(
            ["bash", "-c", here],
            cwd=local.REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert walk.returncode == 0, walk.stderr
    assert '"version":2' in walk.stdout.replace(" ", "")
    assert "unknown-samples" in walk.stdout
    assert "\nVALID: every check passed." in walk.stdout
    assert '"suppressed":3,"positions":[' in walk.stdout.replace(" ", "")


def test_every_setting_is_in_the_readme():
    fields = {**ApiSettings.model_fields, **WorkerSettings.model_fields}

    for name in fields:
        assert f"| `LETHE_{name.upper()}` |" in README
