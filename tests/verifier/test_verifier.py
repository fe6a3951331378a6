"""The verifier as an auditor runs it: one file, alone."""

import ast
import json
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace

import pytest

from attacks import by_hand, story
from attacks.by_hand.forging import mallory, place
from attacks.judge import VERIFIER, judge
from attacks.judge import verify as verifier
from devstack import local

README = (local.REPOSITORY / "verifier" / "README.md").read_text()


def test_it_imports_the_standard_library_and_cryptography_only():
    imported = set()
    for node in ast.walk(ast.parse(VERIFIER.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])

    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


def test_where_it_runs_nothing_of_the_service_can_be_imported(lonely, tmp_path):
    for module in ("service", "rfc8785", "securesystemslib", "sqlalchemy"):
        done = subprocess.run([lonely, "-I", "-c", f"import {module}"], cwd=tmp_path,
                              capture_output=True, check=False)  # fmt: skip
        assert b"ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("which", ["main", "other", "failed"])
def test_an_honest_bundle_is_valid(verify, at_hand, evidence, which):
    done = verify(*at_hand(getattr(evidence, which)))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("VALID: every check passed.\n")
    for title in ("Checked:", "Not checked:", "A valid bundle does not prove:",
                  "What came of the request:"):  # fmt: skip
        assert title in done.stdout


def test_a_bad_outcome_is_told_as_such(verify, at_hand, evidence):
    done = verify(*at_hand(evidence.failed))

    assert "cnn: version 2 -> 3, approximate, verdict fail, accepted by admin" in done.stdout


@pytest.mark.parametrize(
    "attack",
    [
        next(attack for attack in by_hand.ATTACKS if attack.exit_status == exit_status)
        for exit_status in range(3, 9)
    ],
    ids=lambda attack: attack.name,
)
def test_each_class_of_attack_has_its_exit_status(verify, at_hand, evidence, attack):
    done = verify(*at_hand(attack.act(evidence)))

    assert done.returncode == attack.exit_status
    assert re.search(attack.says, done.stdout.splitlines()[-1])
    assert done.stderr == ""
    assert "VALID" not in done.stdout


def test_a_name_in_a_bundle_cannot_write_to_the_terminal(verify, at_hand, evidence):
    given = evidence.main.changed(lambda bundle: bundle.update({"\x1b[2J\u202eok": 1}))

    done = verify(*at_hand(given))

    assert done.returncode == 3
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


# Keys


def test_a_key_may_be_in_pem_or_in_a_file(verify, at_hand, evidence, pem, tmp_path):
    (tmp_path / "key.pem").write_text(pem)
    (tmp_path / "key.txt").write_text(evidence.signer.text + "\n")

    for key in ("key.pem", "key.txt", pem):
        assert verify(*at_hand(replace(evidence.main, keys=(key,)))).returncode == 0


@pytest.mark.parametrize("key", ["", "no key", "missing.pem", "a+b+c", "-----BEGIN PUBLIC KEY"])
def test_what_is_no_key_is_wrong_usage(verify, at_hand, evidence, key):
    done = verify(*at_hand(replace(evidence.main, keys=(key,))))

    assert done.returncode == 2
    assert "--key" in done.stdout + done.stderr


def test_a_file_that_is_not_there_is_wrong_usage(verify, evidence):
    assert verify("missing.json", "--key", evidence.signer.text).returncode == 2
    assert verify("missing.json").returncode == 2
    assert verify().returncode == 2


def test_a_key_that_was_replaced_vouches_for_the_one_that_followed(verify, at_hand, evidence):
    """The auditor has the first key only; the newest checkpoint bears the second one's signature,
    the older one and the certificate's show that it was introduced."""
    done = verify(*at_hand(replace(evidence.main, keys=(story.FIRST.text,))))

    assert done.returncode == 0
    assert "was not given: trusted at the word of one that was" in done.stdout


def test_a_key_is_trusted_only_if_its_introduction_is_in_the_bundle(evidence):
    given = replace(evidence.main, keys=(story.FIRST.text,))
    at = place(given, "signing_key.introduced")

    exit_status, _ = judge(given.changed(lambda bundle: bundle["events"].pop(at)))

    assert exit_status in (verifier.Code.SIGNATURE, verifier.Code.CERTIFICATE)


def test_an_introduction_that_no_trusted_key_covers_is_worth_nothing(evidence):
    """The second key signs a log that introduces it, and the first key signed no checkpoint of
    that length."""
    entries = [e for e in evidence.log.entries if e["event"] != "signing_key.introduced"]
    first, second = (
        evidence.log.entries[evidence.log.find("signing_key.introduced", story.row_id(
            f"key-{signer.note_key.hash.hex()}"))] for signer in (story.FIRST, story.SECOND)
    )  # fmt: skip
    log = evidence.log.of([first, *entries, second])
    old = verifier.read_checkpoint(log.checkpoint([story.FIRST], 20), "old")
    new = verifier.read_checkpoint(log.checkpoint([story.SECOND]), "new")
    word = b64decode(story.FIRST.word_for(story.SECOND))
    introduced = [verifier.Introduced(log.size - 1, key_of(story.SECOND), word)]

    assert verifier.extended([key_of(story.FIRST)], [old, new], introduced) == [key_of(story.FIRST)]
    longer = verifier.read_checkpoint(log.checkpoint([story.FIRST]), "longer")
    assert key_of(story.SECOND) in verifier.extended(
        [key_of(story.FIRST)], [old, longer], introduced
    )


@pytest.mark.parametrize("word", [b"", bytes(64), b64decode(story.SECOND.word_for(story.SECOND))])
def test_an_introduction_without_the_word_of_a_trusted_key_is_worth_nothing(evidence, word):
    """Who may write to the database puts a key into the log, and the operator's key signs that."""
    covering = verifier.read_checkpoint(evidence.log.checkpoint([story.FIRST]), "covering")
    introduced = [verifier.Introduced(3, key_of(story.SECOND), word)]

    trusted = verifier.extended([key_of(story.FIRST)], [covering], introduced)

    assert trusted == [key_of(story.FIRST)]


def key_of(signer):
    return verifier.Key(signer.origin, signer.public)


# Older checkpoints


def test_without_an_older_checkpoint_it_says_what_it_did_not_check(verify, at_hand, evidence):
    done = verify(*at_hand(replace(evidence.main, older=None)))

    assert done.returncode == 0
    assert "no older checkpoint was given" in done.stdout


def test_without_an_older_checkpoint_a_rewritten_log_is_not_noticed(evidence):
    """The limit that no cryptography removes, and the reason to keep checkpoints."""
    attacks = {attack.name: attack for attack in by_hand.ATTACKS}
    forged = attacks["the operator rewrites the past"].act(evidence)

    assert judge(forged)[0] == verifier.Code.CONSISTENCY
    assert judge(replace(forged, older=None))[0] == verifier.Code.VALID


def test_the_same_checkpoint_needs_no_proof(evidence):
    note = evidence.main.parsed["checkpoint"]
    given = evidence.main.changed(lambda bundle: bundle.update(consistency=None))

    assert judge(replace(given, older=note))[0] == verifier.Code.VALID


def test_an_older_checkpoint_of_another_key_is_refused(evidence):
    forged = evidence.log.checkpoint([mallory(evidence)], 14)

    exit_status, reason = judge(replace(evidence.main, older=forged))

    assert exit_status == verifier.Code.SIGNATURE
    assert "the older checkpoint is not signed" in reason


# Weights


def test_weight_files_are_compared_with_the_certificate(verify, at_hand, evidence, tmp_path):
    (tmp_path / "new.safetensors").write_bytes(story.NEW_WEIGHTS)

    done = verify(*at_hand(evidence.main), "--weights", "new.safetensors")

    assert done.returncode == 0
    assert "new.safetensors holds the weights of version 2 of cnn" in done.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [(story.OLD_WEIGHTS, "from before"), (b"others", "not weights that the certificate names")],
)
def test_other_weights_are_refused(verify, at_hand, evidence, tmp_path, content, reason):
    (tmp_path / "new.safetensors").write_bytes(content)

    done = verify(*at_hand(evidence.main), "--weights", "new.safetensors")

    assert done.returncode == verifier.Code.CONTENT
    assert reason in done.stdout


# The whole log


@pytest.fixture
def entries(evidence, tmp_path):
    lines = [evidence.log.leaf(position) for position in range(evidence.log.size)]
    (tmp_path / "now.txt").write_text(evidence.log.checkpoint(evidence.signers))
    (tmp_path / "then.txt").write_text(evidence.main.older)
    (tmp_path / "copy.jsonl").write_text("".join(f"{line}\n" for line in lines[:20]))
    return lines


@pytest.fixture
def whole(verify, evidence, tmp_path):
    def run(lines, *words, key=evidence.signer.text):
        (tmp_path / "entries.jsonl").write_text("".join(f"{line}\n" for line in lines))
        given = ("--checkpoint", "now.txt", "--checkpoint", "then.txt", "--key", key)
        return verify("log", "entries.jsonl", *given, *words)

    return run


def test_a_whole_log_is_compared_with_every_checkpoint(whole, entries):
    done = whole(entries)

    assert (done.returncode, done.stderr) == (0, "")
    assert "the first 14 entries are what" in done.stdout
    assert "the first 51 entries are what" in done.stdout


def test_the_new_key_is_trusted_once_the_old_one_signed_its_introduction(
    whole, entries, evidence, tmp_path
):
    between = evidence.log.checkpoint([story.SECOND, story.FIRST], 30)
    (tmp_path / "between.txt").write_text(between)

    assert whole(entries, key=story.FIRST.text).returncode == 4
    assert whole(entries, "--checkpoint", "between.txt", key=story.FIRST.text).returncode == 0


def test_entries_after_the_checkpoint_are_said_not_to_be_checked(whole, entries, evidence):
    log = evidence.log.appended(evidence.log.entries[3])

    done = whole([*entries, log.leaf(log.size - 1)])

    assert done.returncode == 0
    assert "1 entries after the newest checkpoint" in done.stdout


@pytest.mark.parametrize(
    ("change", "exit_status", "reason"),
    [
        (lambda lines: lines[:-1], 6, "is of 51 entries, and there are 50"),
        (lambda lines: [*lines[:5], *lines[6:]], 6, "line 6 is entry 6, not 5"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 6, "line 1 is entry 1, not 0"),
        (lambda lines: [*lines[:3], lines[3].replace("cnn", "vit"), *lines[4:]], 3, "line 4"),
        (lambda lines: [*lines[:1], lines[1].replace('"cnn"', '"vit"'), *lines[2:]], 6,
         "the first 14 entries are not those"),
        (lambda lines: [*lines[:40], lines[40].replace("api", "ape"), *lines[41:]], 6,
         "the first 51 entries are not those"),
        (lambda lines: [], 6, "is of 14 entries, and there are 0"),
    ],
)  # fmt: skip
def test_a_log_that_was_changed_is_refused(whole, entries, change, exit_status, reason):
    if exit_status == 3:
        entries[3] = entries[3].replace(",", ", ", 1)

    done = whole(change(entries))

    assert done.returncode == exit_status
    assert reason in done.stdout


def test_an_older_copy_names_the_entry_that_differs(whole, entries, evidence):
    forged = evidence.log.edited(7, actor="ape")
    lines = [forged.leaf(position) for position in range(forged.size)]

    done = whole(lines, "--older-entries", "copy.jsonl")

    assert done.returncode == 6
    assert "the entry at position 7 is not the one in the older entries" in done.stdout
    assert whole(entries, "--older-entries", "copy.jsonl").returncode == 0


def test_the_whole_log_shows_what_a_bundle_leaves_out(whole, entries, evidence, tmp_path):
    """A later certificate is hidden, and nothing in the bundle tells."""
    hidden = evidence.rebuilt(evidence.main, evidence.log, evidence.replaced)
    at = place(hidden, "certificate.issued")
    hidden = hidden.changed(lambda bundle: bundle["events"].pop(at))
    (tmp_path / "hidden.json").write_text(json.dumps(hidden.bundle))
    (tmp_path / "honest.json").write_text(json.dumps(evidence.main.bundle))

    done = whole(entries, "--bundle", "hidden.json")

    assert judge(hidden)[0] == 0
    assert done.returncode == verifier.Code.CERTIFICATE
    assert "leaves out certificate.issued at position 30" in done.stdout
    assert whole(entries, "--bundle", "honest.json").returncode == 0


def test_a_log_under_an_unknown_key_is_refused(whole, entries, evidence):
    done = whole(entries, key=mallory(evidence).text)

    assert done.returncode == 4


# What is written about it


def test_help_and_readme_name_every_exit_status(verify):
    listed = verify("--help").stdout

    for code in verifier.Code:
        assert f"\n  {code.value}  " in listed
        assert f"| {code.value} |" in README


def test_readme_says_what_a_valid_bundle_does_not_prove():
    told = " ".join(README.split())
    for limit in verifier.NOT_PROVEN:
        assert limit.partition(":")[0] in told
