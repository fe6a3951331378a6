"""Before anything is trained: does the network still get its inputs, and does it answer as it did?

Each version has ten specimens in its reservoir. A job has the version that it starts from answer
them again, from the files that the job itself reads.
"""

import pyarrow as pa
import structlog
from sqlalchemy import select

from domain.tables import Dataset, Model, ModelVersion, Sample
from worker.data import specimens
from worker.data.kept_answers import Maker
from worker.data.parquet import Source
from worker.engine import environment
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.champion import users_code
from worker.unlearning.network import Network

log = structlog.get_logger()


def made_with(bench: Workbench, model: Model) -> dict[str, str]:
    """What decides how an input is read and answered: versions of code and libraries, by name."""
    return environment.describe(bench.device, users_code(bench, model))


def answered_by(bench: Workbench, model: Model, version: ModelVersion) -> Maker:
    """By what the version's answers are made here, as they are kept with it."""
    return {"weights": version.weights_sha256, **made_with(bench, model)}


def require_unchanged(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    network: Network,
    source: Source,
    kept: pa.Table,
) -> int:
    """Compare the specimens of a version with what they are now.

    Args:
        network: with the version's weights.
        kept: the version's reservoir, possibly without the samples that are to be forgotten.

    Returns:
        How many were compared; 0 for a version that an earlier release made, which has none.

    Raises:
        JobError: an input or an answer is not what it was.
    """
    rows = specimens.of_table(kept)
    if not len(rows):
        log.warning("specimens.absent", advice="this version was made before there were any")
        return 0
    for attempt in bench.transaction():
        with attempt as session:
            found = session.execute(
                select(Sample.sample_id, Sample.position).where(
                    Sample.dataset_id == dataset.id,
                    Sample.since <= model.state,
                    Sample.sample_id.in_(rows["sample_id"].to_pylist()),
                )
            ).all()
    places = {row.sample_id: row.position for row in found}
    rows = rows.filter(pa.array([name in places for name in rows["sample_id"].to_pylist()]))
    if not len(rows):
        return 0
    specimens.require_unchanged(
        rows,
        network,
        source,
        [places[name] for name in rows["sample_id"].to_pylist()],
        model.preprocessing,
        made_with(bench, model),
    )
    log.info("specimens.unchanged", count=len(rows))
    return len(rows)
