"""Structured logs, the same shape in every process: ids and counts, never record contents."""

import logging
import re
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

VALUES = re.compile(r"\n\s*(DETAIL|CONTEXT):.*")


def configure(log_format: Literal["json", "console"], **always: object) -> None:
    """Send structlog and the standard library's loggers to stderr, one event a line.

    Args:
        always: what every event of this process carries.
    """

    def add_always(_: Any, __: str, event: EventDict) -> EventDict:
        return {**always, **event}

    # Without local variables: they may hold sample ids.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    as_json = log_format == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_always,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(tracebacks)
        if as_json
        else structlog.processors.format_exc_info,
        without_values,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    # Our own events do not pass through `logging`, which takes twice as long.
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.INFO


def without_values(_: Any, __: str, event: EventDict) -> EventDict:
    """Cut the lines in which Postgres repeats the values of a row: sample ids may be among them."""
    told = event.get("exception")
    if isinstance(told, str):
        event["exception"] = VALUES.sub("", told)
    elif isinstance(told, list):
        for exception in told:
            exception["exc_value"] = VALUES.sub("", exception["exc_value"])
    return event
