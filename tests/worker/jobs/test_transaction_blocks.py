"""How jobs write transactions: through the workbench, and repeatable."""

import ast

from devstack.local import REPOSITORY

ROOMS = ("worker/jobs", "worker/data")
MAKERS = {"sessions", "_sessions", "sessionmaker", "sync_sessions", "sync_engine", "create_engine"}


def modules():
    found = [REPOSITORY / "worker" / "child.py"]
    found += [file for room in ROOMS for file in (REPOSITORY / room).rglob("*.py")]
    return sorted(found)


def test_a_job_opens_no_transaction_but_the_workbenchs():
    """What a session could be made with is not named at all, but where the workbench is."""
    named = {
        f"{file.name}: {name}"
        for file in modules()
        for node in ast.walk(ast.parse(file.read_text()))
        if (name := getattr(node, "attr", getattr(node, "id", None))) in MAKERS
    }
    assert named == {"child.py: sync_engine", "child.py: sync_sessions"}


def test_every_transaction_is_a_loop_around_a_block_and_nothing_else():
    """Else it would be done once at most, or never end."""
    for file in modules():
        tree = ast.parse(file.read_text())
        asked = [node for node in ast.walk(tree) if is_transaction(node)]
        loops = [node for node in ast.walk(tree) if is_repeated_block(node)]
        assert [node.iter for node in loops] == asked, file


def is_transaction(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "transaction"


def is_repeated_block(node):
    return (
        isinstance(node, ast.For)
        and is_transaction(node.iter)
        and len(node.body) == 1
        and isinstance(node.body[0], ast.With)
        and ast.dump(node.body[0].items[0].context_expr) == "Name(id='attempt', ctx=Load())"
        and node.target.id == "attempt"
    )
