"""Asks the API what its OpenAPI document says can be asked, and a little more.

Nothing here names a route: what is asked comes from the document, and the ids in the paths from the
database, by the collection that they are in.
"""

import re
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from tests.fuzz import seeds

load_all_checks()

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
STEPS = 6
"""Requests of one story of the stateful part."""

CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
    )
]
QUIET = settings(
    deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


UNKNOWN = re.compile(r"- (query|header|cookie)s?: violates `additionalProperties`")
"""Parameters that no route knows are ignored: proxies and browsers add some."""

INEXPRESSIBLE = re.compile("^Value error|or (later|earlier)$|than .* (day|hour|minute|second)s?$")
"""Refusals by rules that a JSON Schema has no words for: our own, and ranges of time."""


def _matters(failure: Exception) -> bool:
    broken = re.findall(r"- \w+: violates .*", str(failure))
    return not broken or not all(UNKNOWN.search(rule) for rule in broken)


class Findings:
    """What was asked, how it was answered, and what should not have been."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.faults: dict[tuple[str, str], str] = {}
        """By operation and kind of fault, the first of each."""

    @property
    def cases(self) -> int:
        return sum(self.statuses.values())

    def add(self, label: str, kind: str, told: str) -> None:
        self.faults.setdefault((label, kind), told)

    def report(self) -> str:
        """All of it, for people."""
        statuses = ", ".join(
            f"{count} x {status}" for status, count in sorted(self.statuses.items())
        )
        head = f"{self.cases} cases of {len(self.asked)} operations: {statuses}"
        faults = [f"- {label}: {told}" for (label, _), told in sorted(self.faults.items())]
        return "\n".join([head, f"{len(faults)} faults", *faults])


Real = dict[str, dict[str, list[Any]]]


class Fuzzer:
    """Asks an application, with its key."""

    def __init__(
        self, app: Any, document: dict[str, Any], key: str, real: Real, number: int
    ) -> None:
        """
        Args:
            document: what it says of itself in OpenAPI.
            real: for each collection, the values of parameters that exist, such as
                `{"jobs": {"job_id": [...]}}`.
            number: of the dice.
        """
        for methods in document["paths"].values():
            for operation in methods.values():
                operation.pop("security", None)  # each request has the key
        self.schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config())
        self.schema.app = self.app = app
        self.real, self.number = real, number
        self.headers = {"Authorization": f"Bearer {key}"}
        self.findings = Findings()

    def operations(self) -> list[Any]:
        return [found.ok() for found in self.schema.get_all_operations() if isinstance(found, Ok)]

    def fuzz(self, cases: int) -> None:
        """Ask each operation in turn, with valid and with invalid requests."""
        operations = self.operations()
        for operation in operations:
            number = max(1, cases // len(operations))

            @seed(self.number)
            @settings(QUIET, max_examples=number)
            @given(case=self._cases(operation))
            def ask(case: Any) -> None:
                self.ask(case)

            ask()

    def walk(self, cases: int) -> None:
        """Follow what one answer says to what can be asked next."""
        fuzzer = self

        class Walk(self.schema.as_state_machine()):  # type: ignore[misc]
            def get_call_kwargs(self, case: Any) -> dict[str, Any]:
                return {"headers": fuzzer.headers}

            def validate_response(self, response: Any, case: Any, **kwargs: Any) -> None:
                fuzzer.judge(case, response)

        run = settings(QUIET, max_examples=max(1, cases // STEPS), stateful_step_count=STEPS)
        Walk.TestCase.settings = run
        seeded = seed(self.number)(Walk)
        run_state_machine_as_test(seeded, settings=run)

    def other_methods(self) -> None:
        """Ask every path with the methods it does not have."""
        paths = self.schema.raw_schema["paths"]
        for path in paths:
            url = path.replace("{number}", "1").replace("{", "").replace("}", "")
            known = {
                method.upper()
                for other, methods in paths.items()
                if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), url)
                for method in methods
            }
            for method in [method for method in METHODS if method not in known]:
                response = self._send(method, url)
                self.findings.statuses[response.status_code] += 1
                allowed = set(response.headers.get("Allow", "").replace(" ", "").split(","))
                if response.status_code != 405 or allowed != known:
                    told = f"answered with {response.status_code}, Allow: {sorted(allowed)}"
                    self.findings.add(f"{method} {path}", "method", told)

    def ask(self, case: Any) -> None:
        self.judge(case, case.call(headers=self.headers))

    def judge(self, case: Any, response: Any) -> None:
        """Hold an answer against the document."""
        label = case.operation.label
        self.findings.asked[label] += 1
        self.findings.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKED, headers=self.headers)
        except FailureGroup as group:
            for failure in group.exceptions:
                if not _matters(failure):
                    continue
                first = str(failure).strip().splitlines()
                self.findings.add(label, type(failure).__name__, " | ".join(first[:12]))
        problem = response.headers.get("content-type", [""])[0] == "application/problem+json"
        if problem and case.meta and case.meta.generation.mode.is_positive:
            refusal = response.json()
            rules = [error["msg"] for error in refusal.get("errors", ())]
            expressible = [rule for rule in rules if not INEXPRESSIBLE.search(rule)]
            if expressible or refusal["type"].endswith((":bad-request", "-missing")):
                told = f"refused although the document allows it: {response.text[:400]}"
                self.findings.add(label, "rule", f"{told} <- {case.body!r:.300} {case.query!r}")

    def _send(self, method: str, url: str) -> requests.Response:
        from schemathesis.python import asgi

        with asgi.get_client(self.app) as client:
            return client.request(method, url, headers=self.headers)

    def _cases(self, operation: Any) -> st.SearchStrategy[Any]:
        """Requests of an operation: valid or not, for what exists or not."""
        valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        choices = [valid]
        real = self._real(operation)
        if real:
            choices += [
                operation.as_strategy(
                    generation_mode=GenerationMode.POSITIVE, path_parameters=values
                )
                for values in real
            ]
        if operation.body:
            choices = [st.one_of(choices), st.one_of(choices).map(self._about_what_exists)]
        if operation.body or operation.query or operation.headers or operation.path_parameters:
            invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            choices = [st.one_of(choices), st.one_of(choices), invalid]
        return st.one_of(choices)

    def _real(self, operation: Any) -> list[dict[str, Any]]:
        """Path parameters of objects that exist."""
        names = [parameter.name for parameter in operation.path_parameters]
        if not names:
            return []
        collection = operation.path.split("/")[2]
        known = self.real.get(collection, {})
        rows = known.get(",".join(names), [])
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _about_what_exists(self, case: Any) -> Any:
        """The same request, naming a model, a dataset and samples that exist."""
        if isinstance(case.body, dict):
            case.body = {
                key: seeds.NAMED[key] if key in seeds.NAMED and value is not None else value
                for key, value in case.body.items()
            }
        return case
