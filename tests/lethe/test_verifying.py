"""`lethe verify`, and certificates on a terminal: with honest and with forged evidence."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attacks import story
from attacks.evidence import Evidence
from lethe.command_line import certificates
from lethe.command_line.main import run
from lethe.command_line.screen import Screen
from lethe.schemas.requests import Certificate
from tests.conftest import KEY
from tests.lethe.fakes import problem, sends


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return story.evidence()


@pytest.fixture
def key(evidence: Evidence, tmp_path):
    """The public key, as the operator publishes it."""
    public = evidence.signer.private.public_key()
    file = tmp_path / "public.pem"
    file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return file


@pytest.fixture
def bundle(evidence: Evidence, tmp_path):
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(evidence.main.parsed))
    return file


def test_a_bundle_is_verified_without_the_service(bundle, key, capsys):
    assert run(["verify", str(bundle), "--key", str(key)]) == 0
    assert "VALID" in capsys.readouterr().out


def test_the_exit_status_is_the_verifier_s(bundle, key, capsys):
    forged = json.loads(bundle.read_text())
    forged["events"][0]["proof"] = []
    bundle.write_text(json.dumps(forged))

    assert run(["verify", str(bundle), "--key", str(key)]) == 5
    assert "REFUSED (inclusion" in capsys.readouterr().out
    assert run(["verify", str(bundle), "--key", str(key), "--json"]) == 5
    said = json.loads(capsys.readouterr().out)
    assert (said["valid"], said["exit_status"]) == (False, 5)
    assert run(["verify", "missing.json", "--key", str(key)]) == 2


def test_further_words_go_to_the_verifier(bundle, key, tmp_path, capsys):
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(b"other weights")

    assert run(["verify", str(bundle), "--key", str(key), "--weights", str(weights)]) == 8
    assert "other.safetensors" in capsys.readouterr().out


def test_the_bundle_of_a_request_is_fetched_when_it_is_signed(
    evidence, key, fake, monkeypatch, capsys
):
    monkeypatch.setenv("LETHE_URL", fake.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    monkeypatch.setattr("lethe.command_line.verifying.PAUSE_S", 0.01)
    found = evidence.main.parsed
    fake.answers(
        problem(409, "not-certified-yet", Retry_After="0"),
        sends(200, found["certificate"]),
        problem(409, "no-checkpoint", Retry_After="0"),
        sends(200, {**found, "certificate": None}),
        sends(200, found),
    )

    assert run(["verify", found["request_id"], "--key", str(key)]) == 0
    assert "VALID" in capsys.readouterr().out


def test_what_is_needed_is_said(bundle, key, monkeypatch, capsys):
    monkeypatch.setattr("lethe.command_line.verifying.find_spec", lambda name: None)

    assert run(["verify", str(bundle), "--key", str(key), "--json"]) == 2
    assert "lethe[verify]" in json.loads(capsys.readouterr().out)["error"]["detail"]


def test_a_certificate_is_shown_with_what_it_does_not_prove(evidence, capsys):
    signed = Certificate.model_validate(evidence.main.parsed["certificate"])

    Screen(as_json=False).show(signed, certificates.picture(signed))

    shown = " ".join(capsys.readouterr().out.split())
    for limit in signed.statement["predicate"]["scope"]["not_proven"]:
        assert limit.split(".")[0][:60] in shown
    assert "lethe verify" in shown


def test_a_certificate_is_saved_as_it_is_signed_or_as_a_page(
    evidence, fake, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LETHE_URL", fake.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    found = evidence.main.parsed
    file = tmp_path / "certificate"

    fake.answers(sends(200, found["certificate"]))
    assert run(["certificate", found["request_id"], "-o", str(file)]) == 0
    assert json.loads(file.read_text()) == found["certificate"]
    assert run(["certificate", found["request_id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["certificate"]
    fake.answers(sends(200, b"<html>certificate</html>"))
    assert run(["certificate", found["request_id"], "--html", "-o", str(file)]) == 0
    assert file.read_text() == "<html>certificate</html>"
    assert fake.received[-1].headers["accept"] == "text/html"
