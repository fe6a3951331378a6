"""Which servers a delivery may go to: their addresses and certificates."""

import socket

import pytest

from domain.states import DeliveryFailure, DeliveryStatus


def test_a_name_without_an_address_is_a_failed_resolution(deliver, hook, row, names):
    def unknown() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names["hooks.example"] = unknown
    hook("https://hooks.example/")

    deliver()

    assert row().failure is DeliveryFailure.DNS


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["8.8.8.8", "fe80::1"],
    ],
)
def test_a_name_that_stands_for_an_address_inside_is_not_connected_to(
    deliver, hook, row, names, connected, addresses
):
    names["hooks.example"] = lambda: addresses
    hook("https://hooks.example/")

    deliver(webhook_development=False)

    assert connected == []
    assert (row().status, row().failure) == (
        DeliveryStatus.WAITING,
        DeliveryFailure.ADDRESS_REFUSED,
    )


def test_a_name_that_changes_between_check_and_connect_is_connected_to_as_checked(
    deliver, serve, hook, row, names, connected, trusted
):
    server = serve(tls=True)
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    names["hooks.example"] = lambda: next(answers)
    hook(f"https://hooks.example:{server.port}/")

    deliver(webhook_development=False)

    assert connected == ["8.8.8.8"]
    assert row().status is DeliveryStatus.DELIVERED
    assert next(answers) == ["127.0.0.1"]  # it was never asked for


def test_an_address_that_does_not_answer_is_followed_by_the_next(deliver, serve, hook, row, names):
    server = serve()
    names["hooks.example"] = lambda: ["127.0.0.2", "127.0.0.1"]
    hook(f"http://hooks.example:{server.port}/")

    deliver()

    assert row().status is DeliveryStatus.DELIVERED


def test_an_endpoint_of_development_is_refused_in_production(deliver, serve, hook, row):
    server = serve()
    hook(server)

    deliver(webhook_development=False)

    assert server.received == []
    assert row().failure is DeliveryFailure.ADDRESS_REFUSED


def test_a_certificate_of_the_name_is_accepted(deliver, serve, hook, row, names, trusted):
    server = serve(tls=True)
    names["hooks.example"] = lambda: ["127.0.0.1"]
    hook(f"https://hooks.example:{server.port}/")

    deliver()

    assert server.received[0][0]["host"] == f"hooks.example:{server.port}"
    assert row().status is DeliveryStatus.DELIVERED


def test_a_certificate_of_another_name_is_refused(deliver, serve, hook, row, names, trusted):
    server = serve(tls=True)
    names["other.example"] = lambda: ["127.0.0.1"]
    hook(f"https://other.example:{server.port}/")

    deliver()

    assert server.received == []
    assert row().failure is DeliveryFailure.TLS


def test_a_certificate_that_nobody_vouches_for_is_refused(deliver, serve, hook, row, names):
    server = serve(tls=True)
    names["hooks.example"] = lambda: ["127.0.0.1"]
    hook(f"https://hooks.example:{server.port}/")

    deliver()

    assert server.received == []
    assert row().failure is DeliveryFailure.TLS
