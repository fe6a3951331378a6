"""What an auditor takes home about a real request, checked by the verifier on its own."""

import json
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from attacks import generated
from attacks.evidence import Evidence, Given, Log
from attacks.judge import judge, run
from devstack import local
from tests.end_to_end.auditor import bundle_of, eventually, signer_of


@pytest.fixture(scope="module")
def certified(client, model, unnamed):
    """A request for five samples with its certificate, and the checkpoint before it."""
    kept = eventually(client, "/v1/audit/checkpoint", text=True)
    where = client.request(model, unnamed(5), subject_ref="customer-4712", reason="Mr. Smith")
    client.forgotten(where)
    envelope = eventually(client, f"{where}/certificate")
    return where.rpartition("/")[2], envelope, kept


@pytest.fixture(scope="module")
def alone(certified, client, tmp_path_factory):
    """An empty directory with the verifier, the operator's public key and nothing else."""
    folder = tmp_path_factory.mktemp("auditor")
    shutil.copy(local.REPOSITORY / "verifier" / "verify.py", folder)
    shutil.copy(client.home.state / "operator.pem", folder)
    (folder / "kept.txt").write_text(certified[2])
    return folder


def verify(folder: Path, bundle, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "bundle.json").write_text(json.dumps(bundle))
    command = [sys.executable, "-I", "verify.py", "bundle.json", "--key", "operator.pem", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_bundle_of_the_running_service_is_valid(client, certified, alone):
    request_id, envelope, kept = certified
    bundle = bundle_of(client, request_id, kept.splitlines()[1])
    (after,) = json.loads(b64decode(envelope["payload"]))["subject"]
    (weights,) = Path(client.home.environment["LETHE_STORE"]).rglob(after["digest"]["sha256"])

    done = verify(alone, bundle, "--older", "kept.txt", "--weights", str(weights))

    assert done.returncode == 0, done.stdout + done.stderr
    assert bundle["certificate"] == envelope
    assert done.stdout.splitlines()[-1].startswith("VALID")


def test_a_byte_that_is_changed_in_the_database_is_told(client, certified, alone):
    request_id, _, kept = certified
    bundle = bundle_of(client, request_id, kept.splitlines()[1])
    event = bundle["events"][-1]
    event["leaf"] = event["leaf"].replace('"worker"', '"api"')

    assert verify(alone, bundle, "--older", "kept.txt").returncode == 5


def test_no_field_of_a_real_bundle_can_be_altered_unnoticed(client, certified):
    """Each column of each event and each field of bundle and certificate, altered or left out;
    what the operator's key signs, signed again."""
    request_id, _, kept = certified
    bundle = bundle_of(client, request_id, kept.splitlines()[1])
    signer = signer_of(client)
    given = Given(bundle, (signer.text,), kept)
    evidence = Evidence(
        log=Log(signer.origin, ()), signers=(signer,), main=given, other=given, failed=given,
        replaced={},
    )  # fmt: skip

    outcomes = run(generated.on_bundle(evidence), evidence)

    assert judge(given) == (0, "valid")
    assert len(outcomes) > 500
    assert [each for each in outcomes if not each.caught] == []


def test_nothing_personal_is_in_a_bundle_or_on_the_page(client, certified):
    request_id, envelope, _ = certified
    page = client.http.get(
        f"/v1/deletion-requests/{request_id}/certificate", headers={"Accept": "text/html"}
    ).text
    payload = b64decode(envelope["payload"]).decode()
    bundle = json.dumps(bundle_of(client, request_id, 1))
    named = client.sql("SELECT sample_id FROM samples LIMIT 2000")
    for secret in ("customer-4712", "Mr. Smith", *(row["sample_id"] for row in named)):
        assert secret not in bundle
        assert secret not in page
        assert secret not in payload
