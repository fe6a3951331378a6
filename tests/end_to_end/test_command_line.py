"""The command line through the whole stack: from naming samples to the weights that forgot them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from devstack import local

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def lethe(home: local.Stack, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Carry a command out as a user would: in a directory of its own, with a key in the
    environment."""
    folder = tmp_path_factory.mktemp("user")
    key = home.headers["Authorization"].removeprefix("Bearer ")
    settings = {
        "LETHE_URL": home.url,
        "LETHE_API_KEY": key,
        "XDG_CONFIG_HOME": str(folder),
        "PYTHONPATH": str(local.REPOSITORY),
    }

    def run(*words: object, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lethe", *map(str, words)],
            cwd=folder, env=os.environ | settings, input=typed, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip

    return run


def said(done: subprocess.CompletedProcess[str], *statuses: int) -> Any:
    """The JSON that a command printed; its exit status is one of these."""
    assert done.returncode in (statuses or (0,)), done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def asked(lethe: Command, client, model: str, unnamed) -> tuple[str, list[str]]:
    """A request that was named on standard input and followed to its end, and its ids.

    What the audit says is for chance: a person accepts a `fail`.
    """
    ids = unnamed(12)
    done = lethe(
        "forget", "-", "--model", model, "--reason", "GDPR Article 17", "--urgent", "--follow",
        "--json",
        typed="\n".join(ids),
    )  # fmt: skip
    request = said(done, 0, 1)
    told = [line.split()[0].rstrip(":") for line in done.stderr.splitlines()[1:]]
    life = ["pending", "scheduled", "running", request["status"]]
    assert len(told) > 1  # a short job may not be seen while it runs
    assert told[-1] == request["status"]
    assert sorted(told, key=life.index) == told
    assert not any(sample_id in done.stdout + done.stderr for sample_id in ids)
    if request["status"] == "needs_review":
        assert done.returncode == 1
        accepted = lethe("decide", request["id"], "accept", "--ground", "It is small.", "--json")
        request = said(accepted)
    assert request["status"] == "completed"
    return request["id"], ids


def test_a_request_is_followed_to_its_end(lethe: Command, asked):
    request_id, ids = asked
    shown = lethe("status", request_id)

    assert said(lethe("status", request_id, "--follow", "--json"))["samples"] == len(ids)
    assert shown.returncode == 0
    assert "completed" in shown.stdout
    assert "verdict" in shown.stdout


def test_its_certificate_is_shown_saved_and_verified(
    lethe: Command, asked, home: local.Stack, tmp_path: Path
):
    request_id, _ = asked
    key = home.state / "operator.pem"

    shown = lethe("certificate", request_id)
    assert shown.returncode == 0
    assert "What this does not prove" in shown.stdout
    assert said(lethe("certificate", request_id, "--json"))["signatures"]
    lethe("certificate", request_id, "--html", "-o", tmp_path / "certificate.html")
    assert (tmp_path / "certificate.html").read_text().startswith("<!DOCTYPE html>")

    assert said(lethe("verify", request_id, "--key", key, "--json"))["valid"]
    assert lethe("audit", "bundle", request_id, "-o", tmp_path / "bundle.json").returncode == 0
    verified = lethe("verify", tmp_path / "bundle.json", "--key", key)
    assert verified.returncode == 0, verified.stdout
    assert "VALID" in verified.stdout


def test_the_whole_log_is_fetched_and_verified(
    lethe: Command, asked, home: local.Stack, tmp_path: Path
):
    lethe("audit", "checkpoint", "-o", tmp_path / "checkpoint.txt")
    lethe("audit", "entries", "-o", tmp_path / "log.jsonl")
    words = ("--checkpoint", tmp_path / "checkpoint.txt", "--key", home.state / "operator.pem")

    verified = lethe("verify", "log", tmp_path / "log.jsonl", *words)

    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_weights_that_forgot_are_pulled(lethe: Command, asked, model: str, tmp_path: Path):
    file = tmp_path / "model.safetensors"

    pulled = said(lethe("pull", model, "-o", file, "--json"))
    (version,) = [one for one in said(lethe("model", "versions", model, "--json")) if
                  one["number"] == pulled["number"]]  # fmt: skip

    assert version["status"] == "champion"
    assert version["number"] > 1
    with safe_open(file, "pt") as tensors:
        assert list(tensors.keys())
    assert lethe("pull", model, "--version", 1, "-o", file).returncode == 3


def test_what_was_forgotten_is_not_trained_on_again(lethe: Command, asked, files: Path):
    _, ids = asked
    checked = lethe("check", "digits", "-", "--json", typed="\n".join([*ids, "somebody new"]))
    assert said(checked, 1) == {"checked": len(ids) + 1, "suppressed": ids}

    (data,) = files.glob("*.parquet")
    rows = said(lethe("check", "digits", "--uri", data.as_uri(), "--json"), 1)
    assert rows["suppressed"] >= len(ids)


def test_an_estimate_says_what_a_request_would_meet(lethe: Command, model: str, unnamed):
    found = said(lethe("estimate", *unnamed(3), "--model", model, "--json"))

    assert found["targets"][0]["result"]["samples"] == 3
