"""The statements that look up what a demand names, and that take a submission.

Each does all it has to in one round trip. They are the driver's: SQLAlchemy would take longer to
hand one over than Postgres takes to run it.
"""

from typing import Any

from psycopg.rows import namedtuple_row
from sqlalchemy.ext.asyncio import AsyncConnection

from domain import trail
from domain.events import RequestReceived

BY_MODEL, BY_DATASET = "m.name = %(name)s", "d.name = %(name)s"

# The ids come as one document, which is written faster than an array. There is one digest for each,
# however many models are asked: as `domain.tombstones.digest` makes it. A tombstone is looked up
# for each, however many there are: a join may read them all.
NAMING = """
each AS (
    SELECT jsonb_array_elements_text(%(ids)s) AS sample_id
), asked AS (
    SELECT d.id AS dataset_id, d.name AS dataset, d.tombstone_key, m.id AS model_id,
           m.name AS model, m.status AS model_status, m.recipe
    FROM datasets d LEFT JOIN models m ON m.dataset_id = d.id
    WHERE {asked_for}
), known AS MATERIALIZED (
    SELECT split, hmac_sha256(substr(key, 1, 64), substr(key, 65, 64), sample_id) AS digest
    FROM (SELECT dataset_id, tombstone_key AS key FROM asked{if_} LIMIT 1) AS its
    JOIN samples USING (dataset_id) JOIN each USING (sample_id)
), counted AS (
    SELECT model_id, count(*) AS known, count(tombstone.digest) AS forgotten,
           count(*) FILTER (WHERE split <> 'train') AS untrained
    FROM asked CROSS JOIN known LEFT JOIN LATERAL (
        SELECT t.digest FROM tombstones t
        WHERE t.model_id = asked.model_id AND t.digest = known.digest LIMIT 1
    ) AS tombstone ON true
    GROUP BY model_id
), named AS (
    SELECT dataset_id, dataset, model_id, model, model_status, recipe, coalesce(known, 0) AS known,
           forgotten, untrained
    FROM asked LEFT JOIN counted USING (model_id)
)
"""
"""`named` has a row for each model asked, with what the samples `ids` are to it; and one, without a
model, for a dataset that has none. No sample is looked up without `if_`."""

TAKING = """
WITH clock AS (
    SELECT pg_try_advisory_xact_lock(%(lock)s) AS is_alone,
           EXISTS (SELECT FROM webhook_endpoints WHERE status = 'enabled') AS is_watched
), kept AS (
    SELECT fingerprint, request_id, asked FROM idempotency_keys
    WHERE key = %(key)s AND created_at >= now() - %(retention)s
), fresh AS (
    SELECT FROM clock WHERE is_alone AND NOT EXISTS (SELECT FROM kept)
), given AS (
    SELECT * FROM jsonb_populate_record(NULL::deletion_requests, %(given)s)
), {naming}, target AS (
    SELECT model, model_id, forgotten, untrained,
           CASE WHEN forgotten < samples THEN 'pending' ELSE 'completed' END AS status,
           model_status = 'ready' AND known = samples AND (recipe IS NOT NULL OR NOT exact) AS can
    FROM named, given WHERE model_status <> 'failed'
), summed AS (
    SELECT jsonb_agg(jsonb_build_array(model, forgotten, untrained) ORDER BY model) AS counts,
           jsonb_agg(model_id ORDER BY model_id) AS models,
           bool_or(status = 'pending') AS is_open, bool_and(can) AS all_can
    FROM target
), taken AS (
    INSERT INTO idempotency_keys AS old (key, fingerprint, request_id, asked)
    SELECT %(key)s, %(fingerprint)s, id, counts FROM fresh, given, summed WHERE all_can
    ON CONFLICT (key) DO UPDATE
    SET (fingerprint, request_id, asked, created_at)
        = (excluded.fingerprint, excluded.request_id, excluded.asked, now())
    WHERE old.created_at < now() - %(retention)s
    RETURNING request_id
), request AS (
    INSERT INTO deletion_requests (
        id, dataset_id, objective, exact, subject_ref, reason, samples, duplicates, commitment,
        received_at, time_zone, due_at, status, finished_at)
    SELECT id, (SELECT dataset_id FROM named LIMIT 1), objective, exact, subject_ref, reason,
           samples, duplicates, commitment, received_at, time_zone, due_at,
           CASE WHEN is_open THEN 'pending' ELSE 'completed' END,
           CASE WHEN NOT is_open THEN now() END
    FROM taken, given, summed
    RETURNING id, status, received_at, time_zone, due_at, created_at
), secret AS (
    INSERT INTO request_keys (request_id, key, entries)
    SELECT id, %(secret)s, %(entries)s FROM request
), suppressed_again AS (
    DELETE FROM lifted_samples USING request, known
    WHERE lifted_samples.dataset_id = (SELECT dataset_id FROM named LIMIT 1)
      AND lifted_samples.digest = known.digest
), ids AS (
    INSERT INTO request_samples (request_id, sample_id)
    SELECT id, sample_id FROM request, each WHERE status = 'pending' ORDER BY sample_id
), targets AS (
    INSERT INTO deletion_targets (request_id, model_id, status, already_forgotten, not_trained_on)
    SELECT id, model_id, target.status, forgotten, untrained FROM request, target
), event AS (
    INSERT INTO audit_events (actor, event, subject_id, data)
    SELECT 'api', '{event}', id, %(told)s || jsonb_build_object(
        'received_at', to_char(timezone('UTC', received_at), '{instant}'),
        'due_at', to_char(timezone('UTC', due_at), '{instant}'), 'models', models)
    FROM request, summed
)
SELECT clock.*, kept.*, request.*, named.*
FROM clock LEFT JOIN kept ON true LEFT JOIN request ON true LEFT JOIN named ON true
ORDER BY model
"""
"""Stores a request with all that belongs to it, if nothing speaks against it.

Takes the advisory lock of its key until the transaction ends, and looks up what it names. Then
comes the row for its key, if every model asked can forget every id and nobody took the key
meanwhile; all else that is stored hangs on that row. Where it does not come,
`operations.must_forget` says why.

A row for each model named, and one where there is none. In each: whether a webhook may have to be
told; what its key was answered before; and the request, if it was stored now.
"""


def _naming(asked_for: str) -> str:
    naming = NAMING.format(asked_for=asked_for, if_="")
    return _in_one_line(f"WITH {naming} SELECT * FROM named ORDER BY model")  # noqa: S608


def _taking(asked_for: str) -> str:
    naming = NAMING.format(asked_for=asked_for, if_=", fresh")
    return _in_one_line(
        TAKING.format(naming=naming, instant=trail.INSTANT, event=RequestReceived.event)
    )


def _in_one_line(sql: str) -> str:
    """psycopg parses what is longer than 4,096 characters anew each time."""
    return " ".join(sql.split())


NAMED_BY_MODEL, NAMED_BY_DATASET = _naming(BY_MODEL), _naming(BY_DATASET)
TAKEN_BY_MODEL, TAKEN_BY_DATASET = _taking(BY_MODEL), _taking(BY_DATASET)


async def rows_of(connection: AsyncConnection, sql: str, **parameters: Any) -> list[Any]:
    """The rows of one of these statements, run within the connection's transaction."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    cursor = driver.cursor(row_factory=namedtuple_row)
    await cursor.execute(sql, parameters)
    rows: list[Any] = await cursor.fetchall()
    return rows
