"""Renders every failure as `application/problem+json` (RFC 9457), and documents it in OpenAPI."""

import re
from collections import defaultdict
from copy import deepcopy
from http import HTTPStatus
from typing import Any

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy import exc
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from domain import database_errors
from domain.errors import (
    BodyEncoded,
    BodyTooLarge,
    BodyTooSlow,
    BodyUnreadable,
    DomainError,
    IdempotencyKeyMissing,
    InvalidRequest,
    TooManyAttempts,
    Unauthorized,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
IDEMPOTENCY_KEY = "Idempotency-Key"
ERRORS_SHOWN = 100
EARLIEST = re.compile(r"greater than or equal to datetime\.datetime\((\d+), (\d+), (\d+)\b")
LOCATION_SHOWN = 100
"""Longest member name, in characters, that an error's location repeats."""

OPEN: tuple[type[DomainError], ...] = (BodyTooLarge, BodyEncoded)
"""What every route may answer: those too that need no key and read no body."""

COMMON: tuple[type[DomainError], ...] = (
    Unauthorized, TooManyAttempts, InvalidRequest, *OPEN, BodyTooSlow, Unavailable,
)  # fmt: skip

log = structlog.get_logger()


def install(app: FastAPI) -> None:
    """Render every failure as a problem document. A bug is a bare 500; its traceback is logged."""

    @app.exception_handler(DomainError)
    async def expected(request: Request, error: DomainError) -> JSONResponse:
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(field["loc"][:2] == ("header", IDEMPOTENCY_KEY) for field in found):
            return respond(
                request,
                IdempotencyKeyMissing(
                    "Send an `Idempotency-Key` header of 1 to 255 visible ASCII characters, such "
                    "as a UUID. Use the same key whenever you send the same request again."
                ),
            )
        fault = "1 field is" if len(found) == 1 else f"{len(found)} fields are"
        detail = f"{fault} not valid; `errors` says which and why."
        fields = [_without_input(field) for field in found[:ERRORS_SHOWN]]
        return respond(request, InvalidRequest(detail, errors=fields))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, DomainError):  # FastAPI wraps what ends reading the body
            return respond(request, error.__cause__)
        phrase = HTTPStatus(error.status_code).phrase
        slug = phrase.lower().replace(" ", "-")
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(request))
        return _render(request, slug, phrase, error.status_code, error.detail, {}, headers)

    @app.exception_handler(psycopg.OperationalError)
    @app.exception_handler(psycopg.InterfaceError)
    @app.exception_handler(psycopg.errors.InsufficientPrivilege)
    @app.exception_handler(psycopg.errors.ReadOnlySqlTransaction)
    @app.exception_handler(exc.OperationalError)
    @app.exception_handler(exc.InterfaceError)
    @app.exception_handler(exc.InternalError)
    @app.exception_handler(exc.ProgrammingError)
    @app.exception_handler(exc.TimeoutError)
    async def without_database(request: Request, error: Exception) -> JSONResponse:
        kind = database_errors.kind_of(error)
        if kind is None:
            raise error  # ours, not the database's
        path, told = request.scope["path"], database_errors.told(error)
        log.warning("database.unavailable", path=path, **told)
        detail = f"The database cannot be used now ({kind}); try again in a few seconds."
        return respond(request, Unavailable(detail, database=kind))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        log.error("request.crashed", path=request.scope["path"], exc_info=error)
        detail = (
            "The service failed, which is a bug; the details are in its log. Try again, and tell "
            "your administrator if it happens again."
        )
        return _render(request, "internal-error", "Internal error", 500, detail, {}, {})


def respond(request: Request, error: DomainError) -> JSONResponse:
    """The problem document of an expected failure."""
    return _render(
        request, error.slug, error.title, error.status, error.detail, error.extra, error.headers
    )


def documented(
    *errors: type[DomainError], common: tuple[type[DomainError], ...] = COMMON
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route that may fail in these ways, and in those all share."""
    by_status: defaultdict[int | str, list[type[DomainError]]] = defaultdict(list)
    for kind in dict.fromkeys((*errors, *common)):
        by_status[kind.status].append(kind)
    return {
        status: {
            "description": " · ".join(kind.title for kind in kinds),
            "content": {
                MEDIA_TYPE: {
                    "schema": _SCHEMA,
                    "examples": {kind.slug: _example(kind) for kind in kinds},
                }
            },
        }
        for status, kinds in by_status.items()
    }


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what FastAPI and Pydantic leave out: that a body may not be readable, and
    that names which match no pattern are refused."""
    _close(document["components"]["schemas"])
    (added,) = documented(BodyUnreadable, common=()).values()
    for methods in document["paths"].values():
        for operation in methods.values():
            if "requestBody" in operation:
                told = operation["responses"].setdefault("400", deepcopy(added))
                told["content"][MEDIA_TYPE]["examples"] |= added["content"][MEDIA_TYPE]["examples"]
    return document


def _close(schema: Any) -> None:
    """Say it in every schema that has patterns for names, however deep."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _close(part)


_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong, as RFC 9457 describes it.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {
            "type": "string",
            "description": "A URN that identifies the kind of problem and never changes; match on "
            "this.",
        },
        "title": {
            "type": "string",
            "description": "The kind of problem in a few words, for people.",
        },
        "status": {"type": "integer", "description": "The HTTP status of this response."},
        "detail": {
            "type": "string",
            "description": "What went wrong this time and what to do about it, for people.",
        },
        "instance": {
            "type": "string",
            "description": "The path of the request that failed.",
        },
    },
}


def _example(kind: type[DomainError]) -> dict[str, Any]:
    problem = {"type": _urn(kind.slug), "title": kind.title, "status": kind.status}
    return {"summary": kind.title, "description": kind.__doc__, "value": problem}


def _urn(slug: str) -> str:
    return f"urn:lethe:problem:{slug}"


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path; Starlette names those of one."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(path):
            methods |= route.methods or set()
    return sorted(methods)


def _without_input(error: dict[str, Any]) -> dict[str, Any]:
    """Where and what, but not the value: it may be personal data."""
    message = error["msg"]
    if error["type"] == "union_tag_invalid":  # the one message of Pydantic that repeats the value
        message = f"Input should be one of {error['ctx']['expected_tags']}"
    if day := EARLIEST.search(message):  # and the one that shows a Python object
        message = "Input should be {:04}-{:02}-{:02} or later".format(*map(int, day.groups()))
    location = [part[:LOCATION_SHOWN] if isinstance(part, str) else part for part in error["loc"]]
    return {"loc": location, "msg": message}


def _render(
    request: Request,
    slug: str,
    title: str,
    status: int,
    detail: str,
    extra: Any,
    headers: Any,
) -> JSONResponse:
    problem = document(slug, title, status, detail, instance=request.scope["path"]) | extra
    return JSONResponse(problem, status, headers=headers, media_type=MEDIA_TYPE)


def document(slug: str, title: str, status: int, detail: str, *, instance: str) -> dict[str, Any]:
    """A problem document with the members that all have."""
    return {
        "type": _urn(slug),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
    }
