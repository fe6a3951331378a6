"""What is settled before a request is read: who may ask, and how much they may send.

Everything needs the key unless its path is listed here, unknown paths included.
"""

import asyncio
from hmac import compare_digest

import structlog
from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.errors import (
    BodyEncoded,
    BodyTooLarge,
    BodyTooSlow,
    DomainError,
    TooManyAttempts,
    Unauthorized,
)
from domain.settings import ApiSettings
from service import attempts, documentation, headers, memory, problems

OPEN = frozenset({"/livez", "/readyz"})
METRICS = "/metrics"
DOCUMENTATION = frozenset({documentation.PAGE, documentation.DOCUMENT})

bearer = HTTPBearer(
    auto_error=False,
    description="The key of this installation, which is the value of `LETHE_ADMIN_KEY`.",
)
"""Declares in OpenAPI what `Gate` enforces."""

log = structlog.get_logger()


class Gate:
    """ASGI middleware in front of every route.

    Not a dependency: FastAPI reads and parses the body before it asks those.
    """

    def __init__(
        self, app: ASGIApp, settings: ApiSettings, failed: attempts.FailedAttempts
    ) -> None:
        self.app = app
        self.key = settings.admin_key.get_secret_value().encode()
        scraping = settings.metrics_key
        self.metrics_key = scraping.get_secret_value().encode() if scraping else None
        self.docs = settings.docs
        self.log_clients = settings.log_clients
        self.max_body_bytes = settings.max_body_bytes
        self.body_timeout_s = settings.body_timeout.total_seconds()
        self.failed = failed
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            await self._check_key(request)
            self._check_body(request)
        except DomainError as error:
            await problems.respond(request, error)(scope, receive, send)
            return
        body = _Body(receive, self)
        await self.app(scope, body.receive, send)
        memory.give_back(body.received)

    def too_large(self) -> BodyTooLarge:
        """The body has more bytes than are allowed."""
        return BodyTooLarge(
            f"The body is larger than {self.max_body_bytes} bytes. Split it into several requests, "
            "or ask your administrator to raise LETHE_MAX_BODY_BYTES."
        )

    async def _check_key(self, request: Request) -> None:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        keys = self._keys(path)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        offered = given.strip().encode()
        known = [compare_digest(offered, key) for key in keys or [self.key]]
        if scheme.lower() == "bearer" and any(known):
            return
        # One of them at each turn of the loop, so that those with a key come in between.
        async with self._turn:
            await asyncio.sleep(0)
        if keys:
            self._refuse(request, "wrong" if request.headers.get("authorization") else "missing")

    def _keys(self, path: str) -> list[bytes]:
        """The keys that open a path; none if it is open to everyone."""
        if path in OPEN:
            return []
        if self.docs and (path in DOCUMENTATION or path.startswith(f"{documentation.ASSETS}/")):
            return []
        if path == METRICS:
            return [self.key, self.metrics_key] if self.metrics_key else []
        return [self.key]

    def _refuse(self, request: Request, reason: attempts.Reason) -> None:
        """Count the failure and raise what answers it. A valid key never comes here, so that nobody
        locks out others who share his address."""
        client = request.client.host if request.client else "unknown"
        count, left_s = self.failed.failed(client, reason)
        told = attempts.shown(client, self.log_clients)
        if count <= attempts.ALLOWED:
            log.warning("authentication.failed", reason=reason, client=told)
            raise Unauthorized(
                "Send the key of this installation in the header `Authorization: Bearer …`."
            )
        if count == attempts.ALLOWED + 1:  # the log does not grow with them
            log.warning("authentication.throttled", client=told, seconds=round(left_s))
        raise TooManyAttempts(
            f"More than {attempts.ALLOWED} requests without a valid key came from this address "
            f"within a minute. Correct the key, and try again in {left_s:.0f} seconds.",
            wait_s=int(left_s) + 1,
        )

    def _check_body(self, request: Request) -> None:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise BodyEncoded("Send the body as it is, without `Content-Encoding`.")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self.max_body_bytes:
            raise self.too_large()


class _Body:
    """What arrives of a request's body: only so much, and only for so long."""

    def __init__(self, receive: Receive, gate: Gate) -> None:
        self._receive, self._gate = receive, gate
        self._deadline: float | None = None
        self._complete = False
        self.received = 0
        """Bytes."""

    async def receive(self) -> Message:
        """The next piece, or, after the last one, that the client has gone.

        Raises:
            BodyTooLarge: more arrived than is allowed.
            BodyTooSlow: the last piece is not there in time, counted from when it was first asked
                for.
        """
        if self._complete:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._gate.body_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body was not complete after {self._gate.body_timeout_s:g} seconds. Send it "
                "faster or in several requests, or ask your administrator to raise "
                "LETHE_BODY_TIMEOUT."
            ) from None
        self._complete = not message.get("more_body", False)
        self.received += len(message.get("body", b""))
        if self.received > self._gate.max_body_bytes:
            raise self._gate.too_large()
        return message


def with_headers(app: ASGIApp) -> ASGIApp:
    """The application with the headers of `service.headers` on all that it answers."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = headers.added(send, scheme=scope.get("scheme", "http"))
        await app(scope, receive, send)

    return wrapped
