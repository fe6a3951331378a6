"""What both clients do with a call: send it, again if that is safe, and understand the answer."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar

import httpx2

from lethe.calls import Answer, Call, Listed
from lethe.errors import LetheError, NotUnderstood, Unreachable, problem_type
from lethe.retrying import PASSING, REFUSED_BEFOREHAND, Retries, retry_after
from lethe.transports import Sent, Transport

T = TypeVar("T")
Page = TypeVar("Page")

NEVER_ARRIVED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
HOPELESS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
"""It will be the same next time."""

IN_FLIGHT = "idempotency-key-in-flight"
NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class Core:
    """A transport, and how patient it is used."""

    transport: Transport
    retries: Retries

    async def perform(self, call: Call[T]) -> T:
        """Send it, and read the result."""
        return understood(call, await self.answer(call))

    async def answer(self, call: Call[Any], known: str | None = None) -> Answer:
        """Send it until there is an answer that stands.

        Args:
            known: the ETag of what the caller has already; the answer may be 304 then.

        Raises:
            Unreachable: there was none.
            Problem: the service refused.
        """
        sent = request(call, {} if known is None else {"If-None-Match": known})
        failure: LetheError
        for attempt in count(1):
            try:
                answer = await self.transport.send(sent)
            except httpx2.RequestError as error:
                failure, again = unreachable(call, error)
                pause = self.retries.pause(attempt, None)
            else:
                if 200 <= answer.status < 300 or answer.status == NOT_MODIFIED:
                    return answer
                failure, again = refusal(call, answer), passes(call, answer)
                pause = self.retries.pause(attempt, retry_after(answer.headers))
            if not again or pause is None:
                raise failure
            await self.transport.sleep(pause)
        raise AssertionError("count() ended")

    async def items(self, listed: Listed[Page, T]) -> AsyncGenerator[T]:
        """What is on the pages of a list, from the first to the last."""
        call = listed.first
        while True:
            page = await self.perform(call)
            for item in listed.items(page):
                yield item
            following = listed.following(page)
            if following is None:
                return
            call = replace(call, query={**call.query, **following})


def request(call: Call[Any], headers: dict[str, str]) -> Sent:
    """What is sent for a call."""
    return Sent(call.method, call.target, call.headers | headers, call.parameters, call.content)


def unreachable(call: Call[Any], error: httpx2.RequestError) -> tuple[Unreachable, bool]:
    """The failure when there was no answer, and whether to try again."""
    arrived = not isinstance(error, NEVER_ARRIVED)
    again = not isinstance(error, HOPELESS) and (call.repeatable or not arrived)
    what = str(error) or type(error).__name__
    advice = "Check that the service runs and that its URL is right."
    if arrived and not call.repeatable:
        advice = "It may have been carried out: look before you send it again."
    elif arrived and call.idempotency_key is not None:
        advice = f"Send it again with the same Idempotency-Key: {call.idempotency_key}"
    reason = f"The service did not answer ({what}). {advice}"
    failure = Unreachable(reason, may_have_arrived=arrived, idempotency_key=call.idempotency_key)
    return failure, again


def passes(call: Call[Any], answer: Answer) -> bool:
    """Whether a refusal may pass by itself, and sending the call again does no harm."""
    if answer.status in REFUSED_BEFOREHAND:
        return True
    if answer.status == 409:
        return call.idempotency_key is not None and _slug(answer) == IN_FLIGHT
    return answer.status in PASSING and call.repeatable


def refusal(call: Call[Any], answer: Answer) -> LetheError:
    """The exception for an answer that is no result."""
    if 300 <= answer.status < 400:
        return NotUnderstood(
            f"The service answered with a redirect ({answer.status}), which is not followed, as "
            "the key would go along. If the service has moved, use its new URL."
        )
    members = _members(answer)
    if not members and answer.status < 500 and answer.status != 429:
        return NotUnderstood(
            f"The answer ({answer.status}) is not a problem document of the service. Check the "
            "URL: something else may be answering there."
        )
    kind = problem_type(answer.status, _slug(answer))
    return kind(
        answer.status,
        members or {"detail": "Something in front of the service answered for it; try again."},
        idempotency_key=call.idempotency_key,
        retry_after=retry_after(answer.headers),
    )


def understood(call: Call[T], answer: Answer) -> T:
    """The result in an answer.

    Raises:
        NotUnderstood: it is not one of this route.
    """
    try:
        return call.read(answer)
    except ValueError:  # without its text, which repeats the body
        raise NotUnderstood(
            f"The answer to {call.method} {call.path} is not what this version of the client "
            "expects. Check the URL, and the versions of client and service."
        ) from None


def _members(answer: Answer) -> dict[str, Any]:
    """The members of a problem document; none where it is something else."""
    try:
        members = json.loads(answer.body)
    except ValueError:
        return {}
    return members if isinstance(members, dict) and "type" in members else {}


def _slug(answer: Answer) -> str:
    return str(_members(answer).get("type", "")).rpartition(":")[2]
