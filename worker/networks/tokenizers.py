"""Whether the tokenizer beside the weights pads with the token that the network takes for padding.

A network of `transformers` does not look at padding, and the config says which token that is. A
tokenizer that pads with another one makes the network look at it, or overlook a real token.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from domain.errors import JobError
from worker.networks import json_files

CONFIG = "tokenizer_config.json"


def check_padding(directory: Path, padding: int | None, allow: Callable[[str], Path]) -> None:
    """Compare the tokenizer's padding, as far as its files give it a number, with the network's.

    Args:
        padding: the network's, from its config.
        allow: resolves a path, and raises JobError where it may not be read.

    Raises:
        JobError: they differ, or a file cannot be read.
    """
    said = _object(directory / CONFIG, allow)
    token = said.get("pad_token") or _object(directory / "special_tokens_map.json", allow).get(
        "pad_token"
    )
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        return
    number = _number(text, said, directory, allow)
    if number is not None and number != padding:
        network = "none" if padding is None else str(padding)
        raise JobError(
            f"{CONFIG} pads with token {number} ({text[:40]!r}), and pad_token_id in config.json "
            f"is {network}: the network would look at the padding. Set pad_token_id to {number} in "
            "config.json if the model was trained with this tokenizer, or remove its files."
        )


def _number(
    text: str, said: dict[str, Any], directory: Path, allow: Callable[[str], Path]
) -> int | None:
    """The id of the token; None if no file tells."""
    added = said.get("added_tokens_decoder")
    for number, token in (added if isinstance(added, dict) else {}).items():
        if isinstance(token, dict) and token.get("content") == text and number.isdigit():
            return int(number)
    fast = _object(directory / "tokenizer.json", allow)
    tokens = fast.get("added_tokens")
    for token in tokens if isinstance(tokens, list) else ():
        if isinstance(token, dict) and token.get("content") == text:
            return _whole(token.get("id"))
    model = fast.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        return _whole(vocabulary.get(text))
    return _whole(_object(directory / "vocab.json", allow).get(text))


def _whole(number: Any) -> int | None:
    return number if type(number) is int else None


def _object(file: Path, allow: Callable[[str], Path]) -> dict[str, Any]:
    return json_files.read(allow(str(file)), what="tokenizer") if file.exists() else {}
