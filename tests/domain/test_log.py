import json
import logging

import psycopg
import pytest
import structlog

from domain import log


@pytest.fixture
def lines(capsys):
    """What is logged within the test, line by line."""
    root = logging.getLogger()
    before, configuration = (root.handlers, root.level), structlog.get_config()
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers, root.level = before
    structlog.configure(**configuration)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_values_of_a_row_stay_out_of_tracebacks(lines, servers, log_format):
    log.configure(log_format, process="test")
    with psycopg.connect(servers.superuser_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE named (sample_id text PRIMARY KEY)")
        insert = "INSERT INTO named VALUES ('patient-4711')"
        connection.execute(insert)
        try:
            connection.execute(insert)
        except psycopg.errors.UniqueViolation:
            structlog.get_logger().exception("it.crashed")

    logged = "\n".join(lines())

    assert "it.crashed" in logged
    assert "UniqueViolation" in logged
    assert "patient-4711" not in logged.replace(insert, "")


def test_every_event_says_which_process_it_is_of(lines):
    log.configure("json", process="test")

    structlog.get_logger("service").info("it.happened", count=3)
    logging.getLogger("elsewhere").warning("so did this")

    events = [json.loads(line) for line in lines()]
    assert [event["process"] for event in events] == ["test", "test"]
    assert events[0]["count"] == 3
