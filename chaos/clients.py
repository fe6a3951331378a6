"""Well-behaved API clients: they keep a key and resend it until they have an answer.

Each is a thread. What it was promised, and what it should not have seen, is in its `Promise`.
"""

import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from chaos.calling import Caller
from chaos.promise import Promise
from chaos.schedule import Asked, Submission
from chaos.stack import Stack

REQUESTS = "/v1/deletion-requests"


class Client:
    """One deletion request, from the first attempt to the last check."""

    def __init__(
        self, stack: Stack, submission: Submission, body: dict[str, object], promise: Promise
    ) -> None:
        self.submission = submission
        self.body = body
        self.promise = promise
        self._caller = Caller(stack, promise)

    def run(self) -> None:
        """Send the request, concurrently if planned; cancel it if planned."""
        if self.submission.impatient:
            self._caller.hang_up(REQUESTS, self.body)
        self._caller.at_once(self.submission.copies, self._send)
        if self.promise.request_id is None:
            return
        self.look()
        if self.submission.cancel_after is not None:
            time.sleep(self.submission.cancel_after)
            self._cancel(self.promise.request_id)

    def look(self) -> None:
        """Check that the request is there."""
        self._caller.require_found(f"{REQUESTS}/{self.promise.request_id}")

    def ask_again(self) -> None:
        """Check that the key still gives its answer."""
        self._send()

    def _send(self) -> None:
        response = self._caller.until_accepted(REQUESTS, self.body)
        if response is None:
            return
        request_id = UUID(response.headers["location"].rpartition("/")[2])
        with self.promise.lock:
            if self.promise.request_id not in (None, request_id):
                self.promise.complaints.append("one key was answered with two requests")
            self.promise.request_id = request_id
            self.promise.answers.add(response.content)

    def _cancel(self, request_id: UUID) -> None:
        """Cancel the request; too late is not an error."""
        self.promise.cancel_asked = True
        response = self._caller.patiently("POST", f"{REQUESTS}/{request_id}/cancel")
        if response is None:
            return
        if response.is_success:
            self.promise.cancelled = True
        elif response.status_code != 409:
            self._caller.complain(f"cancel was answered {response.status_code}: {response.text}")


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
