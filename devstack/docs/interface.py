"""The routes of the API and its problem documents, from the application itself."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from domain.errors import DomainError
from domain.settings import ApiSettings
from service.app import create_app

METHODS = ("get", "post", "patch", "delete")


@cache
def openapi() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    settings = ApiSettings(
        database_url="postgresql://nobody@localhost/nothing",
        broker_url="redis://localhost/0",
        admin_key="never-used-to-open-anything",
        store=Path("nowhere"),
    )
    return create_app(settings).openapi()


def routes() -> str:
    """A table for each group of routes."""
    groups: dict[str, list[str]] = {}
    for method, path, operation in operations():
        does = operation["description"].partition("\n\n")[0]
        row = f"| `{method} {path}` | {' '.join(does.split())} |"
        groups.setdefault(operation["tags"][0], []).append(row)
    return "\n\n".join(
        "\n".join([f"### {tag.capitalize()}", "", "| route | |", "|---|---|", *rows])
        for tag, rows in groups.items()
    )


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every route."""
    for path, methods in openapi()["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def problems() -> str:
    """A table of the kinds of refusal, by status."""
    kinds = sorted(DomainError.__subclasses__(), key=lambda kind: (kind.status, kind.slug))
    rows = [f"| {kind.status} | `urn:lethe:problem:{kind.slug}` | {kind.title} |" for kind in kinds]
    return "\n".join(["| status | type | title |", "|---|---|---|", *rows])
