"""How clients speak to a disturbed service: again and again, with one key, until it answers."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx2

from chaos.promise import Sent
from chaos.stack import Stack

GIVE_UP_S = 90.0
"""A client complains if it has no answer within this time."""

PAUSE_S = 0.2
AWAY = frozenset({502, 503, 504})
"""Answers of a disturbed service: try again. A bare 500 is a bug, whatever the fault."""

LATER = ("in-flight", "model-busy", "dataset-busy")
"""Parts of answers that say to send the same again later."""


class Caller:
    """Sends one thing, and writes down what it is told about that, and what it should not see."""

    def __init__(self, stack: Stack, sent: Sent) -> None:
        self.stack = stack
        self.sent = sent

    def at_once(self, copies: int, send: Callable[[], None]) -> None:
        """Send so many copies at the same time; return when all are answered."""
        with ThreadPoolExecutor(copies) as threads:
            for each in [threads.submit(send) for _ in range(copies)]:
                each.result()

    def until_accepted(self, path: str, body: dict[str, object]) -> httpx2.Response | None:
        """The answer 202, however often it takes."""
        deadline = time.monotonic() + GIVE_UP_S
        last = "nothing"
        while time.monotonic() < deadline:
            try:
                response = self.post(path, body, timeout=5)
            except httpx2.TransportError as error:
                last = repr(error)
            else:
                if response.status_code == 202:
                    return response
                last = f"{response.status_code}: {response.text}"
                later = any(each in response.text for each in LATER)
                if response.status_code not in AWAY and not later:
                    self.complain(f"it was answered {last}")
                    return None
            time.sleep(PAUSE_S)
        self.complain(f"it was not accepted within {GIVE_UP_S:.0f} s, last: {last}")
        return None

    def hang_up(self, path: str, body: dict[str, object]) -> None:
        """Send, and hang up before the answer."""
        with suppress(httpx2.TransportError):
            self.post(path, body, timeout=0.005)

    def post(self, path: str, body: dict[str, object], *, timeout: float) -> httpx2.Response:
        with self.sent.lock:
            self.sent.times += 1
        self.stack.posting.release()
        with self._connection(timeout) as http:
            return http.post(path, json=body, headers={"Idempotency-Key": self.sent.key})

    def patiently(
        self, method: str, path: str, body: dict[str, object] | None = None
    ) -> httpx2.Response | None:
        """The answer, once the service can give one."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                with self._connection(5) as http:
                    response = http.request(method, path, json=body)
                if response.status_code not in AWAY:
                    return response
            except httpx2.TransportError:
                pass
            time.sleep(PAUSE_S)
        self.complain(f"{method} {path} was not answered within {GIVE_UP_S:.0f} s")
        return None

    def require_found(self, path: str) -> None:
        """A client that got a 202 finds what it sent, whatever happened since."""
        response = self.patiently("GET", path)
        if response is not None and response.status_code != 200:
            self.complain(f"GET after 202 was answered {response.status_code}: {response.text}")

    def complain(self, what: str) -> None:
        with self.sent.lock:
            self.sent.complaints.append(what)

    def _connection(self, timeout: float) -> httpx2.Client:
        home = self.stack.home
        # Plain http: nothing to verify, and loading the certificates takes longer than the rest.
        return httpx2.Client(base_url=home.url, headers=home.headers, timeout=timeout, verify=False)
