"""Links in the documents lead somewhere."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devstack import local
from tests.docs.documents import PAGES, name, prose

_LINK = re.compile(r"\]\(<?([^)<>\s]+)>?\)")
_AUTOLINK = re.compile(r"<(https?://[^>\s]+)>")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return [*_LINK.findall(text), *_AUTOLINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The names that headings get where Markdown is shown."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = found[anchor] = found.get(anchor, -1) + 1
        names.add(f"{anchor}-{count}" if count else anchor)
    return names


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), link
            assert parts.hostname, link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.is_relative_to(local.REPOSITORY), f"{link} leads out of the repository"
        assert target.exists(), f"{link}: there is no such file"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{link}: there is no such heading"


def test_every_document_can_be_reached_from_the_readme():
    reached, waiting = set(), [local.REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            path = urlsplit(link).path
            target = (page.parent / path).resolve()
            if path and not urlsplit(link).scheme and target.suffix == ".md":
                waiting.append(target)
            elif target.is_dir():
                waiting += target.glob("*.md")

    assert {name(page) for page in PAGES} - {name(page) for page in reached} == set()


def test_the_readme_is_short():
    assert len((local.REPOSITORY / "README.md").read_text().splitlines()) <= 150
