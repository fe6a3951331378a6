"""Rows that ask for the jobs of `test_transactions.py`."""

from pathlib import Path
from uuid import UUID

from domain.tables import Dataset, DatasetState, Model, VersionRegistration


def state(dataset: Dataset, job_id: UUID, file: Path) -> DatasetState:
    """The dataset is to be what is in this file."""
    return DatasetState(
        dataset_id=dataset.id,
        job_id=job_id,
        idempotency_key="k",
        fingerprint="f",
        uri=str(file),
        refuse_suppressed=False,
    )


def version(model: Model, job_id: UUID, weights: Path, ids: Path) -> VersionRegistration:
    """The model is to have these weights, which were trained on the samples in the second file;
    whatever is objected to them is accepted."""
    return VersionRegistration(
        model_id=model.id,
        job_id=job_id,
        idempotency_key="k",
        fingerprint="f",
        weights_uri=str(weights),
        trained_on={"uri": str(ids), "column": "id"},
        accept_accuracy=True,
        accept_memory=True,
    )
