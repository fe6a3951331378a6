"""Sending to webhooks: what arrives, and how long it is kept."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook, WebhookVerificationError

from devstack import local
from domain.states import DeliveryStatus, WebhookStatus
from domain.tables import WebhookDelivery, WebhookEndpoint
from tests.receivers import new_secret
from worker.delivery import webhooks
from worker.delivery.webhooks import Message


def test_a_delivery_arrives_signed_and_is_stored_as_delivered(deliver, serve, hook, row):
    server = serve()
    endpoint = hook(server)

    deliver()

    ((headers, body),) = server.received
    assert body == row().body
    assert Webhook(endpoint.secret).verify(body, headers)["type"] == "lethe.webhook.test"
    assert headers["webhook-id"] == str(row().id)
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert (row().status, row().attempt) == (DeliveryStatus.DELIVERED, 1)
    assert (row().response_status, row().failure) == (204, None)
    assert row().finished_at is not None


def test_a_forged_body_does_not_verify(deliver, serve, hook):
    server = serve()
    endpoint = hook(server)

    deliver()

    ((headers, body),) = server.received
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.secret).verify(body.replace("test", "tset"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)


def test_after_a_rotation_both_secrets_verify(deliver, serve, hook):
    server = serve()
    until = datetime.now(UTC) + timedelta(hours=1)
    endpoint = hook(server, previous_secret=new_secret(), previous_secret_until=until)

    deliver()

    ((headers, body),) = server.received
    for secret in (endpoint.secret, endpoint.previous_secret):
        Webhook(secret).verify(body, headers)
    assert len(headers["webhook-signature"].split(" ")) == 2


def test_a_secret_that_ran_out_signs_no_more(deliver, serve, hook):
    server = serve()
    until = datetime.now(UTC) - timedelta(seconds=1)
    endpoint = hook(server, previous_secret=new_secret(), previous_secret_until=until)

    deliver()

    ((headers, body),) = server.received
    Webhook(endpoint.secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.previous_secret).verify(body, headers)


def test_a_disabled_endpoint_is_sent_nothing(deliver, serve, hook, row):
    server = serve()
    hook(server, status=WebhookStatus.DISABLED, disabled_reason="for the test")

    deliver()

    assert server.received == []
    assert (row().status, row().attempt) == (DeliveryStatus.WAITING, 0)


def test_neither_urls_nor_secrets_are_logged(deliver, serve, hook, capsys):
    server = serve()
    endpoint = hook(server)

    deliver()

    logged = capsys.readouterr().out
    assert "webhook.sent" in logged
    assert "SECRET" not in logged
    assert endpoint.secret not in logged


def test_proxies_of_the_environment_are_not_used(deliver, serve, hook, row, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{local.free_port()}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{local.free_port()}")
    server = serve()
    hook(server)

    deliver()

    assert row().status is DeliveryStatus.DELIVERED


def test_what_ended_long_ago_is_deleted(sessions, hook, rows):
    hook("https://hooks.example/", tests=4, previous_secret="old",
         previous_secret_until=datetime.now(UTC) - timedelta(days=1))  # fmt: skip
    ends = [(DeliveryStatus.DELIVERED, 31), (DeliveryStatus.DEAD, 31), (DeliveryStatus.DEAD, 29)]
    with sessions.begin() as session:
        for delivery, (ended, days) in zip(
            session.scalars(select(WebhookDelivery)), ends, strict=False
        ):
            delivery.status = ended
            delivery.finished_at = datetime.now(UTC) - timedelta(days=days)

    with sessions.begin() as session:
        webhooks.forget_old(session)

    assert sorted(row.status for row in rows()) == [DeliveryStatus.DEAD, DeliveryStatus.WAITING]
    with sessions.begin() as session:
        assert session.scalar(select(WebhookEndpoint.previous_secret)) is None


def test_a_timestamp_is_that_of_the_attempt():
    message = Message(*(None,) * 2, 1, "https://hooks.example/", "{}", (new_secret(),))
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert webhooks.signed(message, at)["webhook-timestamp"] == str(int(at.timestamp()))
