"""One URL means the same to both clients of the broker."""

import asyncio
import datetime
import json
import socket
import ssl
import threading
from contextlib import closing
from time import monotonic
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from redis.asyncio import Redis

from domain import doorbell
from domain.broker_url import Broker
from service.health import _state_of

PASSWORD = "p%40@:/é;#?[&+ \"'\\"


@pytest.fixture
def user(servers):
    """A user of the real server with a difficult password, as it stands in a URL."""
    client = servers.valkey.client()
    client.execute_command("ACL", "SETUSER", "tricky:é", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    yield f"{quote('tricky:é', safe='')}:{quote(PASSWORD, safe='')}"
    client.execute_command("ACL", "DELUSER", "tricky:é")
    client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-made certificate of `localhost`, and its key, in one file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + private)
    return path


@pytest.fixture
def in_front(servers):
    """Have the server listen on another socket as well, through TLS if there is a context."""
    listening = []

    def listen(listener, context=None):
        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    client = context.wrap_socket(client, server_side=True) if context else client
                except OSError:
                    continue  # the client does not trust us
                server = socket.create_connection(("127.0.0.1", servers.valkey.port))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

        listening.append(listener)
        threading.Thread(target=serve, daemon=True).start()

    yield listen
    for listener in listening:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def pass_on(source, sink):
    with closing(source), closing(sink):
        try:
            while part := source.recv(2**16):
                sink.sendall(part)
        except OSError:
            pass


def hear_each_other(url, name):
    """What kombu puts in, redis-py finds; and the API finds the broker reachable."""
    with doorbell.queue(SecretStr(url)) as bell, bell.connection_for_write() as connection:
        queue = connection.SimpleQueue(name)
        queue.put("x")
        queue.close()

    async def look():
        async with Redis(**Broker.of(url).for_redis) as client:
            return await client.llen(name)

    assert asyncio.run(look()) == 1
    assert asyncio.run(_state_of(Broker.of(url))) == "reachable"


def test_a_password_of_any_characters_and_the_database(servers, user):
    hear_each_other(f"redis://{user}@127.0.0.1:{servers.valkey.port}/7", "difficult")

    assert servers.valkey.client(db=7).delete("difficult") == 1


def test_a_socket(in_front, user, tmp_path, servers):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "a b.sock"))
    listener.listen()
    in_front(listener)
    path = quote(str(tmp_path / "a b.sock"))

    hear_each_other(f"unix://{user}@{path}?db=6", "socket")
    hear_each_other(f"redis+socket://{user}@{path}?virtual_host=5", "socket")

    assert [servers.valkey.client(db=db).delete("socket") for db in (6, 5)] == [1, 1]


@pytest.fixture
def tls_port(in_front, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    in_front(listener, context)
    return listener.getsockname()[1]


@pytest.mark.parametrize("options", ["ssl_ca_certs={}", "ssl_cert_reqs=none"])
def test_tls(servers, user, certificate, tls_port, options):
    url = f"rediss://{user}@localhost:{tls_port}/4?{options.format(certificate)}"

    hear_each_other(url, "tls")

    assert servers.valkey.client(db=4).delete("tls") == 1


@pytest.mark.parametrize(
    "url",
    ["rediss://localhost:{port}/0", "rediss://127.0.0.1:{port}/0?ssl_ca_certs={file}"],
    ids=["unknown certificate", "another name"],
)
async def test_tls_that_proves_nothing_is_refused_by_both(certificate, tls_port, url, capsys):
    broker = Broker.of(url.format(port=tls_port, file=certificate))

    assert await _state_of(broker) == "tls_failed"
    capsys.readouterr()
    with doorbell.queue(url.format(port=tls_port, file=certificate)) as bell:
        await asyncio.to_thread(doorbell.ring_sweep, bell)
    assert "certificate verify failed" in json.loads(capsys.readouterr().out)["why"]


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("redis://nobody:wrong@{here}/0", "authentication_failed"),
        ("redis://{here}/99999", "no_such_database"),
        ("redis://127.0.0.1:1/0", "unreachable"),
        ("redis://no.such.host.invalid/0", "unreachable"),
    ],
)
async def test_why_the_broker_cannot_be_used(servers, place, state, capsys):
    here = f"127.0.0.1:{servers.valkey.port}"

    assert await _state_of(Broker.of(place.format(here=here))) == state
    assert "wrong" not in capsys.readouterr().out.replace("wrong version", "").replace(
        "WRONGPASS", ""
    )


@pytest.mark.parametrize("place", ["nobody:wrong@127.0.0.1:{}/0", "127.0.0.1:{}/99999"])
def test_a_ring_that_the_broker_refuses_is_lost_in_seconds(servers, place, capsys):
    started = monotonic()

    with doorbell.queue(f"redis://{place.format(servers.valkey.port)}") as bell:
        doorbell.ring_sweep(bell)

    assert monotonic() - started < 5
    lost = json.loads(capsys.readouterr().out)
    assert lost["event"] == "doorbell.lost"
    assert "invalid username" in lost["why"] or "DB index is out of range" in lost["why"]


@pytest.mark.parametrize("url", ["redis://h:1/2?db=2", "redis://h:1/2"])
def test_the_database_may_be_said_twice_if_it_is_the_same(url):
    assert Broker.of(url).database == 2
