"""The statements that look up what a demand names, and that take a submission.

Each does all it has to in one round trip. They are the driver's: SQLAlchemy would take longer to
hand one over than Postgres takes to run it.
"""

from typing import Any

from psycopg.rows import namedtuple_row
from sqlalchemy.ext.asyncio import AsyncConnection

from domain import batching
from domain.events import RequestReceived

BY_MODEL, BY_DATASET = "m.name = %(name)s", "d.name = %(name)s"

# The ids come as one document, which is written faster than an array. There is one digest for each,
# however many models are asked: as `domain.tombstones.digest` makes it. A tombstone is looked up
# for each, however many there are: a join may read them all.
NAMING = """
each AS (
    SELECT jsonb_array_elements_text(%(ids)s) AS sample_id
), asked AS (
    SELECT d.id AS dataset_id, d.name AS dataset, d.tombstone_key, d.state > 1 AS later,
           m.id AS model_id, m.name AS model, m.status AS model_status, m.recipe,
           (m.policy #>> '{{batch,window}}')::interval AS held{state}
    FROM datasets d LEFT JOIN models m ON m.dataset_id = d.id
    WHERE {asked_for}
), its AS (
    SELECT dataset_id, tombstone_key AS key FROM asked{if_} LIMIT 1
), known AS MATERIALIZED (
    SELECT split{since}, hmac_sha256(substr(key, 1, 64), substr(key, 65, 64), sample_id) AS digest
    FROM its JOIN samples USING (dataset_id) JOIN each USING (sample_id)
), counted AS (
    SELECT model_id, count(known.digest) AS known, count(grave.digest) AS forgotten,
           count(*) FILTER (WHERE split <> 'train'{or_later}) AS untrained
    FROM asked LEFT JOIN known ON true LEFT JOIN LATERAL (
        SELECT t.digest FROM tombstones t
        WHERE t.model_id = asked.model_id AND t.digest = known.digest LIMIT 1
    ) AS grave ON true
    GROUP BY model_id
), {named}
"""
"""`named` has a row for each model asked, with what the samples `ids` are to it; and one, without a
model, for a dataset that has none. No sample is looked up without `if_`."""

PRESENT = """
named AS (
    SELECT dataset_id, dataset, later, model_id, model, model_status, recipe, held, known,
           forgotten, untrained
    FROM asked LEFT JOIN counted USING (model_id)
)
"""
"""Of a dataset in its first state, which no sample has left: there is nothing `former`."""

FORMER = """
former AS MATERIALIZED (
    SELECT f.since, removed_in,
           hmac_sha256(substr(key, 1, 64), substr(key, 65, 64), f.sample_id) AS digest,
           present.since AS present
    FROM its JOIN former_samples f USING (dataset_id) JOIN each USING (sample_id)
    LEFT JOIN samples present USING (dataset_id, sample_id)
), gone AS (
    SELECT model_id, count(*) FILTER (WHERE present IS NULL) AS known,
           count(tombstone.digest) FILTER (WHERE present IS NULL) AS forgotten,
           count(*) FILTER (WHERE learned AND tombstone.digest IS NULL) AS former,
           count(*) FILTER (WHERE NOT learned AND present IS NULL)
           - count(*) FILTER (WHERE learned AND present > model_state) AS untrained
    FROM asked CROSS JOIN former
    CROSS JOIN LATERAL (
        SELECT former.since <= model_state AND removed_in > model_state AS learned
    ) AS was
    LEFT JOIN LATERAL (
        SELECT t.digest FROM tombstones t
        WHERE t.model_id = asked.model_id AND t.digest = former.digest LIMIT 1
    ) AS tombstone ON true
    GROUP BY model_id
), named AS (
    SELECT dataset_id, dataset, false AS later, model_id, model, model_status, recipe, held,
           counted.known + coalesce(gone.known, 0) AS known,
           counted.forgotten + coalesce(gone.forgotten, 0) AS forgotten,
           counted.untrained + coalesce(gone.untrained, 0) AS untrained,
           coalesce(former, 0) AS former
    FROM asked LEFT JOIN counted USING (model_id) LEFT JOIN gone USING (model_id)
)
"""
"""Of one in any state. Some samples may have left it, or have another content, since a model was
trained: these are `former` to it, and known to the dataset for as long as any model knows them."""

LATER = {
    "state": ", m.state AS model_state",
    "since": ", since",
    "or_later": " OR since > model_state",
}
"""What else is asked of samples and models where the dataset may be in a later state."""

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
    SELECT model, model_id, forgotten, untrained{former}, {until} AS until,
           CASE WHEN forgotten < samples THEN 'pending' ELSE 'completed' END AS status,
           model_status = 'ready' AND known = samples AND (recipe IS NOT NULL OR NOT exact)
           AND NOT later AS can
    FROM named, given WHERE model_status NOT IN ('failed', 'deleted')
){looked_up}, summed AS (
    SELECT jsonb_agg(jsonb_build_array(model, forgotten, untrained{former}, until) ORDER BY model)
           AS counts, jsonb_agg(model_id ORDER BY model_id) AS models,
           bool_or(status = 'pending') AS is_open, bool_and(can{may}) AS all_can
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
        id, dataset_id, objective, exact, urgent, subject_ref, reason, samples, duplicates,
        commitment, received_at, time_zone, due_at, status, finished_at{counts})
    SELECT id, (SELECT dataset_id FROM its), objective, exact, urgent, subject_ref, reason, samples,
           duplicates, commitment, received_at, time_zone, due_at,
           CASE WHEN is_open THEN 'pending' ELSE 'completed' END,
           CASE WHEN NOT is_open THEN now() END{counts}
    FROM taken, given, summed
    RETURNING id, status, received_at, time_zone, due_at, created_at
), secret AS (
    INSERT INTO request_keys (request_id, key, entries)
    SELECT id, %(secret)s, %(entries)s FROM request
), again AS (
    DELETE FROM lifted_samples l USING request, known, its
    WHERE l.dataset_id = its.dataset_id AND l.digest = known.digest
), ids AS (
    INSERT INTO request_samples (request_id, sample_id)
    SELECT id, sample_id FROM request, each WHERE status = 'pending' ORDER BY sample_id
), targets AS (
    INSERT INTO deletion_targets (
        request_id, model_id, status, already_forgotten, not_trained_on{former}, waits_until)
    SELECT id, model_id, target.status, forgotten, untrained{former}, until FROM request, target
), event AS (
    INSERT INTO audit_events (actor, event, subject_id, data)
    SELECT 'api', '{event}', id, %(told)s || jsonb_build_object('models', models)
    FROM request, summed
)
SELECT clock.*, kept.*, request.*, counts, named.*{holds}
FROM clock LEFT JOIN kept ON true LEFT JOIN request ON true CROSS JOIN summed
LEFT JOIN named ON true
ORDER BY model
"""
"""Stores a request with all that belongs to it, if nothing speaks against it.

Takes the advisory lock of its key until the transaction ends, and looks up what it names. Then
comes the row for its key, if every model asked can forget every id and nobody took the key
meanwhile; all else that is stored hangs on that row. Where it does not come,
`operations.must_forget` says why.

A row for each model named, and one where there is none. In each: whether a webhook may have to be
told; what its key was answered before; and the request, if it was stored now, with what its key is
answered from now on.
"""

LOOKED_UP = """, looked_up AS (
    SELECT count(DISTINCT sample_id) = jsonb_array_length(%(found)s)
           AND coalesce(bool_and(sample_id IN (
               SELECT jsonb_array_elements_text(%(found)s))), true) AS holds
    FROM (
        SELECT dataset_id, sample_id, group_digest FROM samples
        UNION ALL SELECT dataset_id, sample_id, group_digest FROM former_samples
    ) AS theirs
    WHERE dataset_id = (SELECT dataset_id FROM named LIMIT 1) AND group_digest = ANY (%(digests)s)
)"""
"""Whether the subjects with the `digests` have just the samples `found`, as they had when they were
looked up: what was committed to since is stored only if it is so still, in the snapshot in which it
is stored. So no change of the index can fall between, and nothing has to be locked against it."""


def _naming(asked_for: str) -> str:
    naming = NAMING.format(asked_for=asked_for, if_="", named=FORMER, **LATER)
    return in_one_line(f"WITH {naming} SELECT * FROM named ORDER BY model")  # noqa: S608


def _taking(asked_for: str, *, later: bool = False, of_subjects: bool = False) -> str:
    """With subjects, or for a dataset in a later state, it is longer than what psycopg keeps, and
    parsed each time. Subjects are looked up beforehand, so that it costs little more."""
    parts = {"looked_up": "", "may": "", "counts": "", "holds": ""}
    if of_subjects:
        parts = {
            "looked_up": LOOKED_UP,
            "may": " AND %(may)s AND (SELECT holds FROM looked_up)",
            "counts": ", subjects, unknown_subjects, subject_samples",
            "holds": ", (SELECT holds FROM looked_up)",
        }
    later |= of_subjects
    more = LATER if later else dict.fromkeys(LATER, "")
    named = FORMER if later else PRESENT
    naming = NAMING.format(asked_for=asked_for, if_=", fresh", named=named, **more)
    parts["former"] = ", former" if later else ""
    return in_one_line(
        TAKING.format(naming=naming, until=batching.UNTIL, event=RequestReceived.event, **parts)
    )


def in_one_line(sql: str) -> str:
    """A shorter form of it: psycopg parses what is longer than 4,096 characters anew each time."""
    return " ".join(sql.split())


NAMED_BY_MODEL, NAMED_BY_DATASET = _naming(BY_MODEL), _naming(BY_DATASET)
TAKEN_BY_MODEL, TAKEN_BY_DATASET = _taking(BY_MODEL), _taking(BY_DATASET)
LATER_BY_MODEL, LATER_BY_DATASET = (_taking(each, later=True) for each in (BY_MODEL, BY_DATASET))
SUBJECTS_TAKEN_BY_MODEL = _taking(BY_MODEL, of_subjects=True)
SUBJECTS_TAKEN_BY_DATASET = _taking(BY_DATASET, of_subjects=True)


def taking(*, by_model: bool, of_subjects: bool, later: bool = False) -> str:
    """The statement that takes a submission of this kind. One that is not made for a `later` state
    of a dataset stores nothing there, and says so."""
    if of_subjects:
        return SUBJECTS_TAKEN_BY_MODEL if by_model else SUBJECTS_TAKEN_BY_DATASET
    if later:
        return LATER_BY_MODEL if by_model else LATER_BY_DATASET
    return TAKEN_BY_MODEL if by_model else TAKEN_BY_DATASET


async def rows_of(connection: AsyncConnection, sql: str, **parameters: Any) -> list[Any]:
    """The rows of one of these statements, run within the connection's transaction."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    cursor = driver.cursor(row_factory=namedtuple_row)
    await cursor.execute(sql, parameters)
    rows: list[Any] = await cursor.fetchall()
    return rows
