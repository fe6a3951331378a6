"""Receiving webhooks: only what the service signed, and only while it is fresh."""

import json
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from lethe import NotSent, WebhookRefused, verify_webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "QUJD" * 8
EVENT = {
    "specversion": "1.0", "id": str(uuid4()), "source": "urn:lethe",
    "type": "lethe.deletion_request.completed", "subject": str(uuid4()),
    "time": "2026-11-30T09:00:00Z", "datacontenttype": "application/json",
    "data": {"status": "completed"},
}  # fmt: skip
BODY = json.dumps(EVENT)


def headers(body: str = BODY, *secrets: str, at: float | None = None) -> dict[str, str]:
    """As the service signs: with the library that defines the scheme."""
    when = datetime.fromtimestamp(at or time.time(), UTC)
    signatures = [Webhook(secret).sign("msg_1", when, body) for secret in secrets or (SECRET,)]
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(when.timestamp())),
        "Webhook-Signature": " ".join(signatures),
    }


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_a_signed_message_is_read(body):
    event = verify_webhook(SECRET, body, headers())

    assert event.type == EVENT["type"]
    assert str(event.subject) == EVENT["subject"]
    assert event.data == {"status": "completed"}


def test_names_of_headers_and_the_prefix_of_the_secret_do_not_matter():
    lower = {name.lower(): value for name, value in headers().items()}

    assert verify_webhook(SECRET.removeprefix("whsec_"), BODY, lower).id


def test_secrets_can_be_changed_on_either_side():
    """While one replaces another, there are two signatures, or two secrets, or both."""
    assert verify_webhook(SECRET, BODY, headers(BODY, OTHER, SECRET)).id
    assert verify_webhook([OTHER, SECRET], BODY, headers()).id


@pytest.mark.parametrize(
    ("secret", "body", "changes"),
    [
        (OTHER, BODY, {}),
        (SECRET, BODY + " ", {}),
        (SECRET, BODY, {"Webhook-Id": "msg_2"}),
        (SECRET, BODY, {"Webhook-Timestamp": str(int(time.time()) + 1)}),
        (SECRET, BODY, {"Webhook-Timestamp": "soon"}),
        (SECRET, BODY, {"Webhook-Timestamp": "\u0661"}),
        (SECRET, BODY, {"Webhook-Signature": "v2,abc v1 v1,"}),
        (SECRET, BODY, {"Webhook-Signature": "v1,\u00e4"}),
        (SECRET, BODY, {"Webhook-Signature": ""}),
        ([], BODY, {}),
    ],
)
def test_anything_else_is_refused(secret, body, changes):
    with pytest.raises(WebhookRefused):
        verify_webhook(secret, body, headers() | changes)


@pytest.mark.parametrize("missing", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_message_without_its_headers_is_refused(missing):
    given = headers()
    del given[missing]

    with pytest.raises(WebhookRefused, match=missing.lower()):
        verify_webhook(SECRET, BODY, given)


@pytest.mark.parametrize("late", [-301, 301])
def test_an_old_message_and_one_of_the_future_are_refused(late):
    now = time.time()
    with pytest.raises(WebhookRefused, match="clock"):
        verify_webhook(SECRET, BODY, headers(at=now + late), now=now)
    assert verify_webhook(SECRET, BODY, headers(at=now + late), now=now, tolerance=400).id


def test_a_signed_message_of_somebody_else_is_refused():
    with pytest.raises(WebhookRefused, match="not an event"):
        verify_webhook(SECRET, "[]", headers("[]"))


def test_what_is_no_secret_is_said_and_not_repeated():
    with pytest.raises(NotSent) as wrong:
        verify_webhook("whsec_?nonsense?", BODY, headers())

    assert "nonsense" not in str(wrong.value)
