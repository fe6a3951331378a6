"""Well-behaved API clients: they keep a key and resend it until they have an answer.

Each is a thread. What it was promised, and what it should not have seen, is in its `Promise`.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID, uuid4

import httpx2

from chaos.promise import Promise
from chaos.schedule import Asked, Submission
from chaos.stack import Stack

GIVE_UP_S = 90.0
"""A client complains if its request is not accepted within this time."""

PAUSE_S = 0.2
AWAY = frozenset({502, 503, 504})
"""Answers of a disturbed service: try again. A bare 500 is a bug, whatever the fault."""

REQUESTS = "/v1/deletion-requests"


class Client:
    """One deletion request, from the first attempt to the last check."""

    def __init__(
        self, stack: Stack, submission: Submission, body: dict[str, object], promise: Promise
    ) -> None:
        self.stack = stack
        self.submission = submission
        self.body = body
        self.promise = promise

    def run(self) -> None:
        """Send the request, concurrently if planned; cancel it if planned."""
        if self.submission.impatient:
            self._hang_up()
        threads = [
            threading.Thread(target=self._send_until_accepted, daemon=True)
            for _ in range(self.submission.copies)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.promise.request_id is None:
            return
        self.look()
        if self.submission.cancel_after is not None:
            time.sleep(self.submission.cancel_after)
            self._cancel(self.promise.request_id)

    def look(self) -> None:
        """A client that got a 202 finds the request, whatever happened since."""
        response = self._patiently("GET", f"{REQUESTS}/{self.promise.request_id}")
        if response is not None and response.status_code != 200:
            self._complain(f"GET after 202 was answered {response.status_code}: {response.text}")

    def ask_again(self) -> None:
        """Check that the key still gives its answer."""
        self._send_until_accepted()

    def _hang_up(self) -> None:
        """Send, and hang up before the answer."""
        with suppress(httpx2.TransportError):
            self._post(timeout=0.005)

    def _send_until_accepted(self) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        last = "nothing"
        while time.monotonic() < deadline:
            try:
                response = self._post(timeout=5)
            except httpx2.TransportError as error:
                last = repr(error)
            else:
                if response.status_code == 202:
                    self._accept(response)
                    return
                last = f"{response.status_code}: {response.text}"
                in_flight = "in-flight" in response.text
                if response.status_code not in AWAY and not in_flight:
                    self._complain(f"the request was answered {last}")
                    return
            time.sleep(PAUSE_S)
        self._complain(f"the request was not accepted within {GIVE_UP_S:.0f} s, last: {last}")

    def _post(self, *, timeout: float) -> httpx2.Response:
        with self.promise.lock:
            self.promise.sent += 1
        self.stack.posting.release()
        with self._connection(timeout) as http:
            return http.post(
                REQUESTS, json=self.body, headers={"Idempotency-Key": self.promise.key}
            )

    def _accept(self, response: httpx2.Response) -> None:
        request_id = UUID(response.headers["location"].rpartition("/")[2])
        with self.promise.lock:
            if self.promise.request_id not in (None, request_id):
                self.promise.complaints.append("one key was answered with two requests")
            self.promise.request_id = request_id
            self.promise.answers.add(response.content)

    def _cancel(self, request_id: UUID) -> None:
        """Cancel the request; too late is not an error."""
        self.promise.cancel_asked = True
        response = self._patiently("POST", f"{REQUESTS}/{request_id}/cancel")
        if response is None:
            return
        if response.is_success:
            self.promise.cancelled = True
        elif response.status_code != 409:
            self._complain(f"cancel was answered {response.status_code}: {response.text}")

    def _patiently(self, method: str, path: str) -> httpx2.Response | None:
        """The answer, once the service can give one."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                with self._connection(5) as http:
                    response = http.request(method, path)
                if response.status_code not in AWAY:
                    return response
            except httpx2.TransportError:
                pass
            time.sleep(PAUSE_S)
        self._complain(f"{method} {path} was not answered within {GIVE_UP_S:.0f} s")
        return None

    def _connection(self, timeout: float) -> httpx2.Client:
        home = self.stack.home
        # Plain http: nothing to verify, and loading the certificates takes longer than the rest.
        return httpx2.Client(base_url=home.url, headers=home.headers, timeout=timeout, verify=False)

    def _complain(self, what: str) -> None:
        with self.promise.lock:
            self.promise.complaints.append(what)


def client(
    stack: Stack,
    submission: Submission,
    samples: Sequence[str],
    *,
    dataset: str,
    models: Sequence[str],
) -> Client:
    """The client that sends this submission.

    Args:
        samples: the fresh ids at its positions.
        models: names of the two models, both trained on the dataset.
    """
    named = [samples[position] for position in submission.samples]
    whole = submission.asked is Asked.BOTH
    model = models[0 if submission.asked is Asked.FIRST else 1]
    asked = {"dataset": dataset} if whole else {"model": model}
    must = frozenset(models) if whole else frozenset({model})
    promise = Promise(str(uuid4()), frozenset(named), must)
    return Client(stack, submission, {**asked, "sample_ids": named}, promise)
