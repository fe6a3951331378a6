"""Which URLs and addresses a webhook may have."""

from ipaddress import ip_address

import pytest

from domain import destinations
from domain.destinations import Destination
from domain.errors import DestinationRefused

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111",
          "2a00:1450:4001::1", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"]  # fmt: skip

PRIVATE = ["127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
           "::1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"]  # fmt: skip

NEVER = [
    "0.0.0.0", "0.1.2.3", "::",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%1", "fec0::1",
    "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254",
    "fd20:ce::254",
    "224.0.0.1", "239.255.255.255", "ff02::1", "240.0.0.1", "255.255.255.255",
    "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "2001:db8::1",
    "3fff::1", "100::1", "4000::1", "::127.0.0.1", "::8.8.8.8",
    "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",
    "2002:a9fe:a9fe::1", "2001:0:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    destinations.check_address(ip_address(address))


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER, "64:ff9b::7f00:1", "2002:7f00:1::"])
def test_addresses_of_no_public_host_are_refused(address):
    with pytest.raises(DestinationRefused):
        destinations.check_address(ip_address(address))


@pytest.mark.parametrize("address", [*PUBLIC, *PRIVATE])
def test_private_addresses_are_allowed_while_developing(address):
    destinations.check_address(ip_address(address), development=True)


@pytest.mark.parametrize("address", NEVER)
def test_the_other_addresses_are_refused_while_developing_too(address):
    with pytest.raises(DestinationRefused):
        destinations.check_address(ip_address(address), development=True)


@pytest.mark.parametrize(
    ("url", "where", "authority"),
    [
        ("https://a.example", Destination("https", "a.example", 443, "/"), "a.example"),
        ("HTTPS://A.example/X?y=1", Destination("https", "a.example", 443, "/X?y=1"), "a.example"),
        ("https://a.example:8443/", Destination("https", "a.example", 8443, "/"), "a.example:8443"),
        ("https://a.example:443?q", Destination("https", "a.example", 443, "/?q"), "a.example"),
        ("https://a_b.example./", Destination("https", "a_b.example.", 443, "/"), "a_b.example."),
        ("https://8.8.8.8/", Destination("https", "8.8.8.8", 443, "/"), "8.8.8.8"),
        (
            "https://[2606:4700::1111]:1/",
            Destination("https", "2606:4700::1111", 1, "/"),
            "[2606:4700::1111]:1",
        ),
    ],
)
def test_a_url_is_taken_apart(url, where, authority):
    parsed = destinations.parse(url)

    assert parsed == where
    assert parsed.authority == authority


REFUSED = [
    "", "x", "//a.example/", "https:", "https:///path", "https://:443/", "https://a.example:0/",
    "https://a.example:65536/", "https://a.example:x/", "https://[::1", "https://[x]/",
    "https://user@a.example/", "https://user:pass@a.example/", "https://@a.example/",
    "https://a.example/#fragment", "https://a.example/#", "https://a.example#@b.example/",
    "https://a.example\\@b.example/", "https://a.example/\r\nHost: b", "https://a.example/ x",
    "https://ä.example/", "https://a..example/", "https://-a.example/", "https://a-.example/",
    "https://%61.example/", f"https://{'a' * 64}.example/", f"https://{'a.' * 130}example/",
    "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/",
    "https://1.2.3.4.5/", "https://127.1./", "https://169.254.169.254/", "https://[fe80::1%25en0]/",
    "ftp://a.example/", "file:///etc/passwd", "gopher://a.example/", "javascript://a.example/",
]  # fmt: skip


@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_plain_url_is_refused(url, development):
    with pytest.raises(DestinationRefused):
        destinations.parse(url, development=development)


@pytest.mark.parametrize(
    "url",
    ["http://a.example/", "https://127.0.0.1/", "https://localhost/", "https://a.localhost/",
     "https://[::1]/", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/"],
)  # fmt: skip
def test_http_and_private_hosts_are_for_development(url):
    with pytest.raises(DestinationRefused):
        destinations.parse(url)
    destinations.parse(url, development=True)
