"""What handwritten attacks share: how each is registered, and how evidence is altered."""

import json
from collections.abc import Callable
from typing import Any

from attacks.evidence import Evidence, Given, Json, Signer
from attacks.judge import Attack

MALLORY = "mallory"
"""A name whose key is not trusted."""

Act = Callable[[Evidence], Given]


def adding_to(attacks: list[Attack]) -> Callable[[int, str], Callable[[Act], None]]:
    """A decorator that adds an attack under its function's name. The verifier must refuse it with
    this exit status and a reason that contains this text."""

    def attack(exit_status: int, says: str) -> Callable[[Act], None]:
        def add(act: Act) -> None:
            attacks.append(Attack(act.__name__.replace("_", " "), exit_status, says, act))

        return add

    return attack


def place(given: Given, event: str) -> int:
    """The index of the last such event in the bundle's list."""
    leaves = [json.loads(each["leaf"]) for each in given.parsed["events"]]
    return max(n for n, leaf in enumerate(leaves) if leaf["event"] == event)


def with_leaf(given: Given, event: str, change: Callable[[str], str]) -> Given:
    """Replace the text of one entry; change nothing else."""
    at = place(given, event)

    def alter(bundle: Json) -> None:
        bundle["events"][at]["leaf"] = change(bundle["events"][at]["leaf"])

    return given.changed(alter)


def with_note(given: Given, change: Callable[[str], str]) -> Given:
    return given.changed(lambda bundle: bundle.update(checkpoint=change(bundle["checkpoint"])))


def with_envelope(given: Given, **fields: Any) -> Given:
    return given.changed(lambda bundle: bundle["certificate"].update(fields))


def said_of(given: Given, event: str) -> Json:
    """The whole entry of the last such event."""
    leaf = given.parsed["events"][place(given, event)]["leaf"]
    return dict(json.loads(leaf))


def result(statement: Json) -> Json:
    """What a statement says about its first model."""
    found: Json = statement["predicate"]["results"][0]
    return found


def mallory(evidence: Evidence) -> Signer:
    return Signer.of(evidence.log.origin, MALLORY)
