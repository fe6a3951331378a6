"""Functions that databases and settings name: `package.module:function`, or `package.module:*`.

Such a name outlives a move of the code that it names: `MOVED` says where the code is now.
"""

from collections.abc import Iterable

HEAD = "worker.networks.recipes:head"
"""The recipe that fits a head anew on a backbone that stays; always allowed, as it runs no user's
code."""

MOVED = {
    "worker.recipes": "worker.networks.recipes",
    "demo.digits": "devstack.demo.digits",
}


def is_listed(name: str, allowed: Iterable[str]) -> bool:
    """Whether the list has this very name, by its present module or an earlier one."""
    return _present(name) in map(_present, allowed)


def is_allowed(name: str, allowed: Iterable[str]) -> bool:
    """Whether the list has this function, or all functions of its module."""
    allowed = set(allowed)
    return is_listed(name, allowed) or is_listed(f"{name.partition(':')[0]}:*", allowed)


def is_head(recipe: str | None) -> bool:
    """Whether it is the recipe that fits nothing but the head."""
    return recipe is not None and is_listed(recipe, [HEAD])


def _present(name: str) -> str:
    module, colon, function = name.partition(":")
    return f"{MOVED.get(module, module)}{colon}{function}"
