"""The OpenAPI document explains every field to a reader who does not know the service."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from domain.errors import DomainError
from domain.states import RequestStatus
from service.problems import MEDIA_TYPE
from tests.service.test_problems import subclasses

FEWEST_WORDS = 4


@pytest.fixture
def document(built_app) -> dict[str, Any]:
    return built_app.openapi()


def complaint(text: str | None) -> str | None:
    """What a description lacks to be a sentence; None if nothing."""
    if not text:
        return "nothing"
    if not text[0].isupper():
        return "begins in lower case"
    if not text.rstrip().endswith((".", "?")):
        return "has no full stop"
    if len(text.split()) < FEWEST_WORDS:
        return "too short"
    if re.match(r"(Of|As|The same|Null|Not|And|Also|So)\b", text):
        return "needs another field to be understood"
    return None


def members(schema: Any, where: str) -> Iterator[tuple[str, str | None]]:
    """Every property in a schema, however deep, with its description."""
    if isinstance(schema, dict):
        for name, member in schema.get("properties", {}).items():
            yield f"{where}.{name}", member.get("description")
        for name, part in schema.items():
            if name not in ("examples", "example", "default"):
                yield from members(part, f"{where}.{name}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from members(part, f"{where}[{number}]")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def without_sentence(described: Iterator[tuple[str, str | None]]) -> list[str]:
    return [f"{where}: {why}: {text!r}" for where, text in described if (why := complaint(text))]


def test_every_member_of_every_schema_has_a_sentence(document):
    found = list(members(document["components"]["schemas"], "schemas"))

    assert len(found) > 300
    assert without_sentence(iter(found)) == []


def test_every_schema_has_a_description(document):
    schemas = document["components"]["schemas"]
    described = {name: schema.get("description") for name, schema in schemas.items()}
    del described["JsonValue"]  # anything

    assert without_sentence(iter(described.items())) == []


def test_every_member_of_every_answer_has_a_sentence(document):
    found = [
        member for where, operation in operations(document) for member in members(operation, where)
    ]

    assert found
    assert without_sentence(iter(found)) == []


def test_every_parameter_has_a_sentence(document):
    found = [
        (f"{where} {parameter['name']}", parameter.get("description"))
        for where, operation in operations(document)
        for parameter in operation.get("parameters", ())
    ]

    assert len(found) > 50
    assert without_sentence(iter(found)) == []


def test_every_operation_has_a_summary_and_a_description(document):
    for where, operation in operations(document):
        summary, method_name = operation["summary"], operation["operationId"]
        assert summary != method_name.replace("_", " ").title(), f"{where}: made by a machine"
        assert summary[0].isupper(), where
        assert not summary.endswith("."), where
        assert complaint(operation["description"]) is None, where


def test_every_value_of_every_enumeration_is_explained(document):
    for name, schema in document["components"]["schemas"].items():
        for value in schema.get("enum", ()):
            assert f"- `{value}`: " in schema["description"], (name, value)
    assert document["components"]["schemas"]["RequestStatus"]["enum"] == list(RequestStatus)


@pytest.mark.parametrize("kind", subclasses(DomainError), ids=lambda kind: kind.slug)
def test_every_problem_says_when_it_occurs(kind):
    assert complaint(kind.__doc__) is None
    assert kind.__doc__ is not DomainError.__doc__
    assert kind.title[0].isupper()
    assert not kind.title.endswith(".")


def test_every_problem_is_documented_where_it_occurs(document):
    shown: set[str] = set()
    for _, operation in operations(document):
        for response in operation["responses"].values():
            problem = response.get("content", {}).get(MEDIA_TYPE)
            if problem:
                shown |= problem["examples"].keys()
                assert all(example["description"] for example in problem["examples"].values())

    assert shown == {kind.slug for kind in subclasses(DomainError)}
