"""The digest of the code that a result rests on."""

import shutil

import pytest

from worker.engine import environment


@pytest.fixture
def copy(tmp_path):
    """The code that decides results, and some that does not."""
    for folder in (*environment.DECIDING, "benchmarks"):
        shutil.copytree(
            environment.ROOT / folder, tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize("file", [
    "domain/drift.py", "evidence/wording.py", "worker/unlearning/audit/verdict.py",
    "worker/jobs/unlearn/record.py",
])  # fmt: skip
def test_it_changes_with_every_file_that_decides(copy, file):
    with (copy / file).open("a") as opened:
        opened.write("# changed\n")

    assert environment.code_sha256(copy) != environment.code_sha256()


def test_it_changes_with_the_name_of_a_file(copy):
    (copy / "domain/drift.py").rename(copy / "domain/drifted.py")

    assert environment.code_sha256(copy) != environment.code_sha256()


def test_it_is_of_that_code_and_of_nothing_else(copy):
    (copy / "benchmarks/scaling.py").unlink()
    (copy / "domain/notes.txt").write_text("none")

    assert environment.code_sha256(copy) == environment.code_sha256()
