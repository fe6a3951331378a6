"""Headers that every answer has, errors included: what a browser may do with it."""

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}

SEALED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy of what no browser is to show: it loads and runs nothing, and no page frames it."""

NOT_STORED = "no-store"
"""What a route says of its answers may be personal data; a cache is not where those are kept."""

HSTS = "max-age=31536000"
"""A year. Only behind TLS: elsewhere it says nothing, and its own host may not have TLS."""


def added(send: Send, *, scheme: str) -> Send:
    """`send`, with these headers in the answer, unless it has its own."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in of_every_answer(scheme).items():
                headers.setdefault(name, value)
        await send(message)

    return with_headers


def of_every_answer(scheme: str) -> dict[str, str]:
    """The headers and their values, for an answer that has none of its own."""
    told = {**ALWAYS, "Content-Security-Policy": SEALED, "Cache-Control": NOT_STORED}
    return told | {"Strict-Transport-Security": HSTS} if scheme == "https" else told
