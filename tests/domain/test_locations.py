"""Which locations may be read: what a URI becomes is checked after each step."""

import os
import socket

import pytest

from domain.errors import LocationRefused
from domain.locations import allowed_path, inside, require_file


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An allowed directory with one of everything that a name can stand for."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.parquet").touch()
    (root / "日本 50%.parquet").touch()
    (root / "loop").symlink_to(root / "loop")
    (root / "there").symlink_to(root / "and back")
    (root / "and back").symlink_to(root / "there")
    (root / "away").symlink_to("/etc")
    (root / "device").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    (root / "line\nbreak").touch()
    (root / "to a line break").symlink_to(root / "line\nbreak")
    monkeypatch.chdir(root)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    return root


OUTSIDE, FORM, TEXT = "outside the allowed", "absolute path", "Control characters"


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("/etc/passwd", OUTSIDE),
        ("{root}/../outside", OUTSIDE),
        ("{root}/away/passwd", OUTSIDE),
        ("{root}/away/../../x", OUTSIDE),
        ("file://{root}/%2e%2e/x", OUTSIDE),
        ("file://{root}/%2E%2E%2Fx", OUTSIDE),
        ("{root}-beside/x", OUTSIDE),
        ("", FORM),
        ("a.parquet", FORM),
        ("~/a.parquet", FORM),
        (" {root}/a.parquet", FORM),
        ("file:a.parquet", FORM),
        ("file:%2Fa%00", TEXT),
        ("file:////etc/passwd", FORM),
        ("file:///%2Fetc/passwd", FORM),
        ("file://host{root}/a.parquet", "another host"),
        ("file://me@localhost{root}/a.parquet", "another host"),
        ("file://localhost:80{root}/a.parquet", "another host"),
        ("//host{root}/a.parquet", "another host"),
        ("http://[", FORM),
        ("https://host/a", "'https'"),
        ("s3://bucket/a", "'s3'"),
        ("C:/data/a", "'c'"),
        ("{root}/a.parquet?x", "%3F"),
        ("{root}/a.parquet?", "%3F"),
        ("file://{root}/a.parquet#", "%3F"),
        ("{root}/\0", TEXT),
        ("file://{root}/%00", TEXT),
        ("file://{root}/a.parquet%00.txt", TEXT),
        ("file://{root}/a%0A.parquet", TEXT),
        ("{root}/a\n.parquet", TEXT),
        ("fi\tle://{root}/a.parquet", TEXT),
        ("file://{root}/%C2%85", TEXT),
        ("{root}\\a.parquet", TEXT),
        ("file://{root}/..%5C..%5Cx", TEXT),
        ("{root}/to a line break", TEXT),
        ("file://{root}/%ff", "UTF-8"),
        ("file://{root}/%C0%AE%C0%AE/x", "UTF-8"),
        ("{root}/\udcff", "UTF-8"),
        ("file://{root}/50%", "%25"),
        ("file://{root}/50%zz", "%25"),
        ("{root}/" + "x" * 256, "too long"),
        ("{root}/" + "é" * 128, "too long"),
        ("file://{root}/" + "%C3%A9" * 128, "too long"),
        ("{root}/" + "a/" * 2048, "too long"),
        ("{root}/loop", "leads back"),
        ("{root}/loop/a.parquet", "leads back"),
        ("{root}/there", "leads back"),
        ("{root}/pipe", "named pipe"),
        ("{root}/socket", "a socket"),
    ],
)
def test_what_may_not_be_read_is_refused(root, uri, why):
    with pytest.raises(LocationRefused, match=why.replace("(", r"\(")):
        allowed_path(uri.replace("{root}", str(root)), [root])


def test_a_device_is_refused(root):
    with pytest.raises(LocationRefused, match="not a file or a directory but a device"):
        allowed_path(str(root / "device"), [root, root.__class__("/dev")])


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("{root}/a.parquet", "a.parquet"),
        ("file://{root}/a.parquet", "a.parquet"),
        ("FILE://localhost{root}/sub/", "sub"),
        ("file:{root}/a.parquet", "a.parquet"),
        ("{root}/sub/../a.parquet", "a.parquet"),
        ("{root}/日本 50%.parquet", "日本 50%.parquet"),
        ("file://{root}/%E6%97%A5%E6%9C%AC%2050%25.parquet", "日本 50%.parquet"),
        ("{root}/50%zz", "50%zz"),
        ("file://{root}/%252e%252e/x", "%2e%2e/x"),  # decoded once: these are names
        ("{root}/%2e%2e", "%2e%2e"),
        ("{root}/not yet there/x", "not yet there/x"),
        ("{root}/a.parquet/x", "a.parquet/x"),
    ],
)
def test_what_may_be_read_is_found(root, uri, name):
    assert allowed_path(uri.replace("{root}", str(root)), [root]) == root / name


def test_a_name_found_in_a_directory_is_no_uri(root):
    assert inside(root / "a?b%41#c", [root]) == root / "a?b%41#c"
    with pytest.raises(LocationRefused, match="UTF-8"):
        inside(root / os.fsdecode(b"\xff"), [root])


def test_where_a_file_is_needed_nothing_else_will_do(root):
    require_file(root / "a.parquet")
    require_file(root / "not there")
    for other in ("sub", "pipe", "socket", "device", "loop"):
        with pytest.raises(LocationRefused):
            require_file(root / other)
