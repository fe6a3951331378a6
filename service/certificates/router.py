"""The routes of certificates. HTTP only."""

import pathlib
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from domain.errors import NotCertified, NotCertifiedYet, NotFound
from service import polling
from service.certificates import operations, page
from service.dependencies import Sessions
from service.headers import SEALED
from service.problems import documented

router = APIRouter(tags=["certificates"])

MEDIA_TYPE = "application/vnd.in-toto.unlearning+dsse"
"""As in-toto names an attestation with a predicate `unlearning`; it is JSON."""

PAGE = "text/html"
SHOWN = f"{SEALED}; style-src 'unsafe-inline'"
"""The page brings all that it needs; a browser is to load and run nothing."""

SCHEMA = (pathlib.Path(__file__).parents[2] / "verifier/predicate.schema.json").read_bytes()
SCHEMA_MEDIA_TYPE = "application/schema+json"

ENVELOPE = {
    "type": "object",
    "title": "Envelope",
    "description": "A signed statement, as DSSE defines it.",
    "required": ["payload", "payloadType", "signatures"],
    "properties": {
        "payload": {"type": "string", "description": "The in-toto statement as JSON, in base64."},
        "payloadType": {
            "const": "application/vnd.in-toto+json",
            "description": "The media type of the payload, which is signed with it.",
        },
        "signatures": {
            "type": "array",
            "description": "The signatures, by keys that the audit trail introduces.",
            "items": {
                "type": "object",
                "required": ["keyid", "sig"],
                "properties": {
                    "keyid": {
                        "type": "string",
                        "description": "SHA-256 of the raw public key, in hex.",
                    },
                    "sig": {
                        "type": "string",
                        "description": "The Ed25519 signature in base64.",
                    },
                },
            },
        },
    },
}

RequestId = Annotated[
    UUID, Path(description="The id of the deletion request, as its `Location` gives it.")
]
Number = Annotated[
    int | None,
    Query(
        ge=1,
        le=2**31 - 1,
        description="The number of the certificate among those of the request, counted from 1; "
        "leave it out for the newest.",
    ),
]
AnyResponse = dict[int | str, dict[str, Any]]


@router.get(
    "/deletion-requests/{request_id}/certificate",
    summary="Get the certificate of a deletion request",
    response_class=Response,
    responses={
        200: {
            "description": "The signed statement, or a page that shows it to people.",
            "content": {MEDIA_TYPE: {"schema": ENVELOPE}, PAGE: {"schema": {"type": "string"}}},
        },
        **documented(NotFound, NotCertified, NotCertifiedYet),
    },
)
async def read_certificate(
    request_id: RequestId, sessions: Sessions, request: Request, number: Number = None
) -> Response:
    """Get what was certified about a completed request: an in-toto statement in a DSSE envelope.

    With `Accept: text/html` you get the same data as a page for people, made from the signed
    statement; print it if you need a PDF. Only the envelope can be verified.
    """
    certificate = await operations.get(sessions, request_id, number)
    if prefers_page(request.headers.get("accept", "")):
        body, media_type = page.render(certificate.envelope), PAGE
        headers = {"Vary": "Accept", "Content-Security-Policy": SHOWN}
    else:
        body, media_type, headers = certificate.envelope, MEDIA_TYPE, {"Vary": "Accept"}
    return polling.conditional(request, body.encode(), media_type=media_type, headers=headers)


@router.get(
    "/audit/predicate-schema",
    summary="Get the schema of certificates",
    response_class=Response,
    responses={
        200: {"content": {SCHEMA_MEDIA_TYPE: {"schema": {"type": "object"}}}},
        **documented(),
    },
)
async def read_predicate_schema(request: Request) -> Response:
    """Get the JSON Schema of the predicate `urn:lethe:unlearning:v1`, which is what certificates
    state."""
    return polling.conditional(request, SCHEMA, media_type=SCHEMA_MEDIA_TYPE, headers={})


def prefers_page(accept: str) -> bool:
    """Whether an `Accept` header names HTML, and nothing that it likes better, but for `*/*`."""
    liked = {name: quality for name, quality in map(_quality, accept.split(","))}
    others = [quality for name, quality in liked.items() if name not in (PAGE, "*/*")]
    return liked.get(PAGE, 0.0) > 0 and liked[PAGE] >= max(others, default=0.0)


def _quality(named: str) -> tuple[str, float]:
    """A media type of an `Accept` header, and how well it is liked."""
    name, *parameters = (part.strip().lower() for part in named.split(";"))
    given = [value for value in parameters if value.startswith("q=")]
    try:
        return name, float(given[0].removeprefix("q=")) if given else 1.0
    except ValueError:
        return name, 0.0
