"""What is settled before a request is read: who may ask, and how much they may send.

Everything needs the key unless its path is listed here, unknown paths included.
"""

from hmac import compare_digest

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import BodyTooLarge, DomainError, Unauthorized
from domain.settings import ApiSettings
from service import problems

OPEN = frozenset(
    {"/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
)
DOCS_ASSETS = "/docs-assets"

bearer = HTTPBearer(
    auto_error=False,
    description="The key of this installation, which is the value of `LETHE_ADMIN_KEY`.",
)
"""Declares in OpenAPI what `Gate` enforces."""


class Gate:
    """ASGI middleware in front of every route.

    Not a dependency: FastAPI reads and parses the body before it asks those.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self.app = app
        self.key = settings.admin_key.get_secret_value().encode()
        self.max_body_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._check_key(request)
            self._check_length(request)
        except DomainError as error:
            await problems.respond(request, error)(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _check_key(self, request: Request) -> None:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path in OPEN or path.startswith(f"{DOCS_ASSETS}/"):
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not compare_digest(given.strip().encode(), self.key):
            raise Unauthorized(
                "Send the key of this installation in the header `Authorization: Bearer …`."
            )

    def _check_length(self, request: Request) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self.max_body_bytes:
            raise self._too_large()

    def _counted(self, receive: Receive) -> Receive:
        """`receive`, until it has delivered more than is allowed."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self.max_body_bytes} bytes. Split it into several requests, "
            "or ask your administrator to raise LETHE_MAX_BODY_BYTES."
        )
