"""`make audit`: do the versions in constraints.txt have known vulnerabilities with a fix?

pip-audit is run in an environment of its own, so that the lock holds nothing of it. It needs the
network. Without it, or if the service does not know our packages, this says so in one line and is
no failure: a check must not depend on the weather.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devstack.local import REPOSITORY

TIMEOUT_S = 60
COMMAND = [
    str(Path(sys.executable).with_name("uv")), "tool", "run", "--no-config", "--quiet",
    "--from", "pip-audit==2.10.1", "pip-audit", "--timeout", "10", "--progress-spinner", "off",
    "--requirement", str(REPOSITORY / "constraints.txt"), "--no-deps", "--disable-pip",
    "--format", "json",
]  # fmt: skip


def audit(command: Sequence[str] = COMMAND, *, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Run the command; return the exit status of `make audit` and what to tell.

    Args:
        command: prints a report as pip-audit does.
        timeout_s: how long it may take.
    """
    try:
        answer, errors = _ran(command, timeout_s)
        report = json.loads(answer)
    except subprocess.TimeoutExpired:
        return 0, _not_audited(f"it took more than {timeout_s:g} seconds")
    except OSError as error:
        return 0, _not_audited(f"{command[0]} could not be started ({type(error).__name__})")
    except ValueError:
        last = (errors.strip().splitlines() or ["no output"])[-1]
        return 0, _not_audited(f"the service did not answer ({last[:200]})")
    return judged(report)


def judged(report: dict[str, Any]) -> tuple[int, str]:
    """The exit status for a report of pip-audit, and what to tell: 1 if a version that we lock has
    a known vulnerability that another version has not."""
    packages = report["dependencies"]
    known = [package for package in packages if "vulns" in package]
    found = [(package, fault) for package in known for fault in package["vulns"]]
    if not known:
        return 0, _not_audited(f"the service knows none of our {len(packages)} packages")
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault['fix_versions']) or 'no version yet'}"
        for package, fault in found
    ]
    unknown = len(packages) - len(known)
    beside = f", {unknown} more are not known to the service" if unknown else ""
    lines.append(f"{len(known)} packages audited, {len(found)} known vulnerabilities{beside}.")
    fixable = any(fault["fix_versions"] for _, fault in found)
    if fixable:
        lines.append("Take the fixed versions with `make lock upgrade=1`, and run the tests.")
    return int(fixable), "\n".join(lines)


def _ran(command: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """What it printed, to both streams. Whatever it started ends with it."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            return process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _not_audited(why: str) -> str:
    return f"The locked packages were not audited: {why}. Run `make audit` where it can be reached."


if __name__ == "__main__":
    status, told = audit()
    print(told)
    sys.exit(status)
