"""A document that names tests names tests that exist."""

import re

import pytest

from devstack import local
from tests.docs.documents import PAGES

NAMED = [
    (page.name, *found.groups())
    for page in PAGES
    for found in re.finditer(r"`(tests/[\w/]+\.py)::(test_\w+)`", page.read_text())
]


def test_there_are_some():
    assert len(NAMED) > 40


@pytest.mark.parametrize(("page", "file", "test"), NAMED)
def test_a_test_that_a_document_names_exists(page, file, test):
    assert f"def {test}(" in (local.REPOSITORY / file).read_text(), page
