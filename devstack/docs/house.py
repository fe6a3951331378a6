"""The house in one picture, from the real import graph, and what each room holds."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import grimp

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("domain", "evidence", "service", "worker", "lethe", "devstack", "chaos", "attacks")
Edges = dict[str, set[str]]


def picture() -> str:
    """A Mermaid diagram: boxes are rooms, an arrow means "imports".

    An arrow that follows from others is left out: what a room imports through another one it may
    import itself.
    """
    edges = reduced(imports())
    inside = sorted(room for room in edges if room.startswith("worker."))
    lines = ["flowchart TD", "  subgraph worker"]
    lines += [f"    {_node(room, room.removeprefix('worker.'))}" for room in inside]
    lines += ["  end"]
    lines += [f"  {_node(room, room)}" for room in sorted(edges) if room not in inside]
    lines += [f"  {_id(a)} --> {_id(b)}" for a in sorted(edges) for b in sorted(edges[a])]
    return "\n".join(["```mermaid", *lines, "```"])


def rooms() -> str:
    """A table: each room, what its docstring says it holds, and its files."""
    folders = [folder for package in PACKAGES for folder in _folders(REPOSITORY / package)]
    return "\n".join(["| room | holds | files |", "|---|---|---|", *map(_room_row, folders)])


def imports() -> Edges:
    """Which rooms each room imports: a room of the worker, or a package as a whole."""
    graph = _graph()
    edges: Edges = {room(module): set() for module in graph.modules}
    edges.pop("worker", None)  # an empty file
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if room(module) != room(imported):
                edges[room(module)].add(room(imported))
    return edges


def room(module: str) -> str:
    """Where a module stands: `worker.engine` of `worker.engine.lease`, `domain` of `domain.log`."""
    package, _, rest = module.partition(".")
    return f"worker.{rest.partition('.')[0]}" if package == "worker" and rest else package


def reduced(edges: Edges) -> Edges:
    """The same without arrows that follow from two or more others."""
    return {
        start: {
            end
            for end in ends
            if not any(end in _reachable(edges, other) for other in ends - {end})
        }
        for start, ends in edges.items()
    }


def _reachable(edges: Edges, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _node(room: str, label: str) -> str:
    return f'{_id(room)}["{label}"]'


def _id(room: str) -> str:
    return room.replace(".", "_")


def _room_row(folder: Path) -> str:
    name = folder.relative_to(REPOSITORY)
    return f"| `{name}/` | {_summary(folder / '__init__.py')} | {_files(folder)} |"


def _folders(package: Path) -> Iterator[Path]:
    """A package and the packages in it, sorted."""
    yield from sorted(path.parent for path in package.rglob("__init__.py"))


def _files(folder: Path) -> str:
    names: Iterable[str] = (path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    return " ".join(f"`{name}`" for name in sorted(names))


def _summary(module: Path) -> str:
    """The first paragraph of its docstring."""
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())
