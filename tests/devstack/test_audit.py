"""A known vulnerability with a fix fails the check; a service that does not answer does not."""

import json
import sys

import pytest

from devstack.audit import audit, judged

FIXED = {"id": "PYSEC-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
OPEN = FIXED | {"fix_versions": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}


def package(*faults):
    return {"name": "a", "version": "1.0", "vulns": list(faults)}


@pytest.mark.parametrize(
    ("packages", "status", "told"),
    [
        ([package()], 0, "1 packages audited, 0 known vulnerabilities."),
        ([package(FIXED), SKIPPED], 1, "a 1.0: PYSEC-1, fixed in 2.0"),
        ([package(OPEN)], 0, "fixed in no version yet"),
        ([package(OPEN, FIXED)], 1, "make lock upgrade=1"),
        ([package(), SKIPPED], 0, "1 more are not known to the service"),
        ([SKIPPED], 0, "were not audited: the service knows none of our 1 packages"),
        ([], 0, "were not audited"),
    ],
)
def test_only_what_can_be_mended_fails(packages, status, told):
    found = judged({"dependencies": packages, "fixes": []})

    assert (found[0], told in found[1]) == (status, True), found


def python(code):
    return [sys.executable, "-c", code]


def test_a_report_is_read_whatever_the_exit_status():
    report = json.dumps({"dependencies": [package(FIXED)], "fixes": []})

    assert audit(python(f"print({report!r}); raise SystemExit(1)"))[0] == 1


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (python("raise ConnectionError('no route')"), "ConnectionError: no route"),
        (python("pass"), "no output"),
        (["sh", "-c", "sleep 9 & wait"], "more than 0.3 seconds"),
        (["/nowhere/uv"], "could not be started"),
    ],
)
def test_without_the_service_one_line_says_so(command, why):
    status, told = audit(command, timeout_s=0.3 if "sleep" in command[-1] else 30)

    assert (status, told.count("\n")) == (0, 0)
    assert "were not audited" in told
    assert why in told
