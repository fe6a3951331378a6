"""The client against the API's OpenAPI document: they cannot drift apart."""

import inspect
from collections import Counter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from domain import errors as domain_errors
from domain.settings import ApiSettings
from lethe import AsyncLethe, Lethe, errors
from lethe.calls import Call, Listed
from lethe.routes import Routes
from lethe.routing import listing, route
from lethe.schemas import common
from lethe.schemas.datasets import Columns
from lethe.schemas.models import PythonArchitecture
from service.app import create_app
from tests.conftest import KEY

JSON = "application/json"
WEIGHTS = ("GET", "/v1/models/{name}/versions/{number}/weights")
"""The one route that is no `route`: `weights` checks what it downloads."""

GIVEN = {
    "sample_ids": ["t1"],
    "subjects": ["ann"],
    "columns": Columns(sample_id="a", input="b", label="c", split="d"),
    "architecture": PythonArchitecture(factory="nets.cnn:build"),
}
"""Arguments that must be more than a word or a number."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    settings = ApiSettings(
        database_url="postgresql+psycopg://nowhere/none",
        broker_url="redis://none",
        admin_key=KEY,
        store=Path("nowhere"),
    )
    return create_app(settings).openapi()


def described() -> dict[str, Call[Any]]:
    """By the name of each method: the call it makes."""
    calls = {}
    for name, method in inspect.getmembers_static(Routes):
        if isinstance(method, route | listing):
            call = method.describe(None, **arguments(method.describe))
            calls[name] = call.first if isinstance(call, Listed) else call
    return calls


def arguments(describe: Any) -> dict[str, Any]:
    """Something for each argument, the optional ones included."""
    hints = get_type_hints(describe)
    return {name: GIVEN.get(name, sample(hints[name])) for name in hints if name != "return"}


def sample(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    known = {str: "x", int: 1, bool: True}
    if hint in known:
        return known[hint]
    if inspect.isclass(hint) and issubclass(hint, common.Word):
        return next(iter(hint))
    if hint.__name__ == "UUID":
        return uuid4()
    return None


CALLS = described()


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def answers(operation: dict[str, Any]) -> list[tuple[str, Any]]:
    """What an operation answers when all is well, by media type; alternatives one by one."""
    found = []
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            content = response.get("content") or {"": {}}
            for media_type, body in content.items():
                schema = body.get("schema", {})
                found += [(media_type, one) for one in schema.get("anyOf", [schema])]
    return found


def test_every_operation_has_methods_and_every_method_an_operation(document):
    called = {(call.method, call.path) for call in CALLS.values()}

    assert called == operations(document).keys() - {WEIGHTS}


def test_every_answer_of_an_operation_has_exactly_one_method(document):
    """Most operations answer in one way. A check, a proof and a certificate have two."""
    methods = Counter((call.method, call.path) for call in CALLS.values())

    for key, operation in operations(document).items():
        if key != WEIGHTS:
            assert methods[key] == len(answers(operation)), key


@pytest.mark.parametrize("name", CALLS)
def test_results_are_what_the_operation_answers(document, name):
    call = CALLS[name]
    operation = operations(document)[call.method, call.path]
    definitions = document["components"]["schemas"]
    given = [(media, shape(schema, definitions)) for media, schema in answers(operation)]

    if call.reads is str:
        assert any(shape == "string" or media == "text/plain" for media, shape in given) or (
            call.path == "/metrics"
        )
    elif call.reads is bytes:
        assert (call.accept, ("string", "binary")) in given
    elif call.reads is NoneType:
        assert given == [("", "anything")]
    elif call.reads == dict[str, Any]:
        assert given[0][1] in ("anything", "object")
    else:
        schema = TypeAdapter(call.reads).json_schema(mode="serialization")
        ours = shape(schema, schema.get("$defs", {}))
        assert ours in [shape for _, shape in given]


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.body])
def test_bodies_have_the_members_that_the_operation_takes(document, name):
    call = CALLS[name]
    definitions = document["components"]["schemas"]
    schema = operations(document)[call.method, call.path]["requestBody"]["content"][JSON]["schema"]
    alternatives = [resolved(one, definitions) for one in schema.get("oneOf", [schema])]

    assert call.body
    assert any(call.body.keys() == one["properties"].keys() for one in alternatives), (
        call.body.keys() ^ alternatives[0]["properties"].keys()
    )


@pytest.mark.parametrize("name", CALLS)
def test_parameters_are_those_of_the_operation(document, name):
    call = CALLS[name]
    named = {
        (parameter["in"], parameter["name"])
        for parameter in operations(document)[call.method, call.path].get("parameters", [])
    }
    places = {name for where, name in named if where == "path"}
    query = {name for where, name in named if where == "query"}
    keyed = ("header", "Idempotency-Key") in named

    assert call.places.keys() == places
    assert call.query.keys() <= query
    assert query - call.query.keys() <= {"cursor", *PROOFS.get(name, ())}
    assert (call.idempotency_key is not None) == keyed


PROOFS = {"prove_inclusion": ("old",), "prove_consistency": ("position",)}


def test_parts_of_bodies_have_the_members_that_the_service_takes(document):
    """Also where a newer service would take more than the answer shows."""
    from lethe.schemas import datasets, models

    parts = [datasets.Columns, datasets.Splits, datasets.Erase, models.Preprocessing]
    parts += [models.ExpectedAccuracy, models.Policy, models.DriftLimits, models.Batching]
    for part in parts:
        theirs = document["components"]["schemas"][part.__name__]["properties"]
        assert part.model_fields.keys() == theirs.keys(), part


def test_defaults_of_the_parts_are_the_service_s(document):
    from lethe.schemas import datasets, models

    parts = [datasets.Splits, datasets.Erase, models.Preprocessing, models.Policy]
    parts += [models.ExpectedAccuracy]
    parts += [models.DriftLimits, models.Batching]
    for part in parts:
        theirs = document["components"]["schemas"][part.__name__]["properties"]
        ours = part().model_dump(mode="json", exclude_none=True)  # as a default is shown
        for name, schema in theirs.items():
            if "default" in schema:
                assert ours.get(name) == schema["default"], (part, name)


def test_the_asynchronous_client_has_the_same_methods():
    def public(client: type) -> set[str]:
        return {name for name in dir(client) if not name.startswith("_")}

    assert public(Lethe) == public(AsyncLethe)


@pytest.mark.parametrize("kind", domain_errors.DomainError.__subclasses__())
def test_every_problem_of_the_service_has_an_exception(kind):
    found = errors.problem_type(kind.status, kind.slug)

    assert found not in (errors.Problem, errors.ServiceFailed)
    assert kind.slug not in errors.NotYet.slugs or found is errors.NotYet


def resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema that a reference leads to."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def shape(schema: Any, definitions: dict[str, Any]) -> Any:
    """What a schema allows, in a form that can be compared: names, types and what is required.

    Not its limits (a length, a range), which answers keep anyway, and no texts. A member that can
    be but one word need not be required.
    """
    schema = resolved(schema, definitions)
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives:
        return union([shape(one, definitions) for one in alternatives])
    if "enum" in schema or "const" in schema:
        return ("words", frozenset(schema.get("enum", [schema.get("const")])))
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return ("list", *(shape(item, definitions) for item in items))
    if kind == "object" and "properties" in schema:
        required = frozenset(schema.get("required", ()))
        return (
            "object",
            frozenset(
                (name, shape(member, definitions), name in required or "const" in member)
                for name, member in schema["properties"].items()
            ),
        )
    if kind == "object":
        named = schema.get("patternProperties", {}).values()
        values = next(iter(named), schema.get("additionalProperties", True))
        return "object" if values is True else ("map", shape(values, definitions))
    return (kind, schema["format"]) if "format" in schema else kind


def union(shapes: list[Any]) -> Any:
    """Alternatives, with words of several lists in one."""
    words = [one[1] for one in shapes if isinstance(one, tuple) and one[0] == "words"]
    others = frozenset(one for one in shapes if not (isinstance(one, tuple) and one[0] == "words"))
    if not words:
        return ("one of", others)
    merged = ("words", frozenset().union(*words))
    return ("one of", others | {merged}) if others else merged
