"""What keeps the code easy to navigate: short files, telling names, docstrings."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

from devstack.local import REPOSITORY

MOST_LINES = 400
LONGER = {
    "verifier/verify.py": "one file, so that an auditor can read it and take it along",
}
CODE = {".css", ".html", ".js", ".mako", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml"}
"""Endings of files that people write. Data that programs write (`benchmarks/results`), JSON
schemas, and the list of pinned versions may be of any length."""

SAY_NOTHING = {"helpers", "misc", "util", "utils"}
"""Names under which anything might stand."""

DOCUMENTED = ("domain", "evidence", "service", "worker", "lethe")
LEAST_SHARE_OF_METHODS = 0.75


def own_files() -> Iterator[Path]:
    """The project's files; not those of hidden folders, nor what Python and pip leave behind."""
    for folder, below, names in os.walk(REPOSITORY):
        below[:] = [name for name in below if name[0] != "." and not name.startswith("__pyc")]
        yield from (Path(folder, name) for name in names)


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


FILES = sorted(own_files())


def test_no_code_file_is_long():
    lengths = {name(path): len(path.read_text().splitlines()) for path in FILES
               if path.suffix in CODE}  # fmt: skip

    assert lengths.keys() >= {"worker/child.py", "docker-compose.yml", "pyproject.toml"}
    assert {path for path, lines in lengths.items() if lines > MOST_LINES} == LONGER.keys()


def test_every_file_and_folder_says_what_it_holds():
    parts = {part for path in FILES for part in path.relative_to(REPOSITORY).with_suffix("").parts}

    assert parts & SAY_NOTHING == set()


KINDS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes in a module, or methods in a class, that others may use."""
    return (node for node in body if isinstance(node, KINDS) and not node.name.startswith("_"))


def is_documented(node: ast.AST) -> bool:
    """An error of the API says in its title what went wrong."""
    has_title = isinstance(node, ast.ClassDef) and any(
        isinstance(each, ast.Assign) and "title" in ast.unparse(each.targets[0])
        for each in node.body
    )
    return has_title or ast.get_docstring(node) is not None


def modules() -> dict[str, ast.Module]:
    return {name(path): ast.parse(path.read_text()) for path in FILES
            if path.suffix == ".py" and name(path).partition("/")[0] in DOCUMENTED}  # fmt: skip


def test_every_module_and_every_public_class_and_function_has_a_docstring():
    silent = [
        f"{path}: {getattr(node, 'name', 'the module')}"
        for path, module in modules().items()
        for node in (module, *public(module.body))
        if not is_documented(node)
    ]

    assert silent == []


def test_most_public_methods_have_a_docstring():
    """Those that do what the method they override promises need none."""
    classes = [
        node
        for module in modules().values()
        for node in public(module.body)
        if isinstance(node, ast.ClassDef)
    ]
    found = [is_documented(method) for each in classes for method in public(each.body)]

    assert sum(found) >= LEAST_SHARE_OF_METHODS * len(found)
