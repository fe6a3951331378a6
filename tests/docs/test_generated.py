"""The generated parts of the documents match the code."""

import tomllib
from typing import Any

import pytest
from pydantic import Field, create_model
from pydantic_settings import BaseSettings

import domain
from devstack import local
from devstack.docs import configuration, house, pages
from domain.settings import ApiSettings, MigrationSettings, WorkerSettings


def test_no_page_is_out_of_date():
    stale = [path.name for path in pages.stale()]

    assert not stale, f"out of date: {stale}; run `make docs`"


def test_every_setting_is_on_the_page_of_settings():
    page = (pages.DOCS / "configuration.md").read_text()

    for settings in (MigrationSettings, ApiSettings, WorkerSettings):
        for name in settings.model_fields:
            assert page.count(f"| `LETHE_{name.upper()}` |") == 1


@pytest.mark.parametrize(
    "text", ["Where it is.", "Read by worker.", "Where. Read by nobody.", None]
)
def test_a_setting_that_does_not_say_what_it_is_for_or_who_reads_it_is_refused(text):
    made: Any = create_model("Made", __base__=BaseSettings, place=(str, Field(description=text)))

    with pytest.raises(ValueError, match="docstring of place"):
        configuration.described("place", made.model_fields["place"])


def test_an_arrow_that_follows_from_others_is_left_out():
    edges = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set(), "d": set()}

    assert house.reduced(edges) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}


def test_every_room_says_what_it_holds():
    for row in house.rooms().splitlines()[2:]:
        assert not row.split("|")[2].isspace(), row


def test_the_version_stands_in_two_places_alike():
    project = tomllib.loads((local.REPOSITORY / "pyproject.toml").read_text())["project"]

    assert project["version"] == domain.__version__
    assert f"## [{domain.__version__}]" in (local.REPOSITORY / "CHANGELOG.md").read_text()
