"""Function names in databases and settings survive a move of the code."""

import sys

import pytest

from domain import functions
from worker.networks import architectures, recipes
from worker.networks.functions import load

NOW = {"demo.digits:cnn": "devstack.demo.digits:cnn", "worker.recipes:train": recipes.DEFAULT}


@pytest.mark.parametrize(("before", "now"), NOW.items())
def test_a_list_allows_a_function_by_its_earlier_name_and_by_its_present_one(before, now):
    for name in (before, now):
        for listed in (before, now, f"{before.partition(':')[0]}:*", f"{now.partition(':')[0]}:*"):
            assert functions.is_allowed(name, ["other.module:name", listed])
        assert not functions.is_allowed(name, ["other.module:name"])


@pytest.mark.parametrize(("before", "now"), NOW.items())
def test_a_stored_name_finds_the_function(before, now):
    loaded = [load("recipe", name, [before], setting="ALLOWED") for name in (before, now)]

    assert loaded[0] is loaded[1]


def test_a_model_that_was_registered_before_the_move_is_built():
    architecture = {"kind": "python", "factory": "demo.digits:cnn"}

    built = architectures.build(architecture, ["demo.digits:*"])

    assert type(built) is type(architectures.build(architecture, ["devstack.demo.digits:cnn"]))


def test_the_default_recipe_is_allowed_by_either_name():
    assert recipes.load("worker.recipes:train", []) is recipes.load(recipes.DEFAULT, [])


def test_a_users_own_module_of_an_earlier_name_is_the_users(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "digits.py").write_text("def cnn():\n    return 'the user'\n")
    monkeypatch.syspath_prepend(tmp_path)

    try:
        function = load("factory", "demo.digits:cnn", ["demo.digits:*"], setting="ALLOWED")
    finally:  # later tests find the module that moved
        for name in ("demo", "demo.digits"):
            sys.modules.pop(name, None)

    assert function() == "the user"
