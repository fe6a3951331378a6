"""Which weights may be fetched, and that they were."""

from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from domain import objects, trail
from domain.errors import NotServable, WeightsUnavailable, no_such
from domain.events import WeightsFetched
from domain.states import VersionStatus
from domain.tables import Model, ModelVersion
from service import downloads
from service.dependencies import Sessions

log = structlog.get_logger()


async def digest_of(sessions: Sessions, name: str, number: int) -> str:
    """The SHA-256 of the weights of a version that may be served.

    Raises:
        NotFound: there is no such version.
        NotServable: it is not the champion.
    """
    async with sessions.begin() as session:
        return (await _served(session, name, number)).weights_sha256


async def open_file(store: Path, digest: str) -> tuple[BinaryIO, int]:
    """The file and how many bytes it has. Raises WeightsUnavailable when it cannot be opened."""
    try:
        return await downloads.open_file(objects.path_of(store, digest))
    except OSError as error:
        log.error("weights.unavailable", sha256=digest, kind=type(error).__name__)
        raise WeightsUnavailable(
            f"The service cannot read the file {digest[:12]}… in its store "
            f"({error.strerror or type(error).__name__}). Ask your administrator to check that the "
            "API can read the directory LETHE_STORE, and to restore the file from a backup if it "
            "is missing."
        ) from None


async def record_fetched(sessions: Sessions, name: str, number: int) -> None:
    """Note in the audit trail that a download of a version's weights begins.

    A copy that left the service may outlive the version, so the trail has to tell that there is
    one. The version is locked against being superseded meanwhile: in the log, no
    `weights.fetched` of a version stands behind its `version.superseded`.

    Raises:
        NotServable: it has been superseded since.
    """
    async with sessions.begin() as session:
        version = await _served(session, name, number, locked=True)
        fetched = WeightsFetched(model=version.model_id, number=number)
        trail.record(session, "api", version.id, fetched)


async def _served(
    session: AsyncSession, name: str, number: int, *, locked: bool = False
) -> ModelVersion:
    """The version, if it is the champion. Locked, it remains so until the transaction ends."""
    of_model = select(ModelVersion).join(Model, Model.id == ModelVersion.model_id)
    of_model = of_model.where(Model.name == name)
    wanted = of_model.where(ModelVersion.number == number)
    if locked:
        wanted = wanted.with_for_update(read=True, of=ModelVersion)
    version = (await session.scalars(wanted)).one_or_none()
    if version is None:
        raise no_such(
            f"version {number} of a model {name!r}", listed_at=f"/v1/models/{name}/versions"
        )
    if version.status is VersionStatus.CHAMPION:
        return version
    champion = (
        await session.scalars(of_model.where(ModelVersion.status == VersionStatus.CHAMPION))
    ).one_or_none()
    served = champion.number if champion else None
    raise NotServable(
        f"Version {number} of the model {name!r} {_obstacle(version)} {_instead(served)}",
        version_status=version.status,
        champion=served,
    )


def _obstacle(version: ModelVersion) -> str:
    if version.purged_at is not None:
        return "was superseded, and its files have been deleted."
    if version.status is VersionStatus.SUPERSEDED:
        return "holds samples that have been forgotten since; it is never served again."
    return (
        "failed its audit and awaits a person's decision "
        "(`POST /v1/deletion-requests/{id}/decision`)."
    )


def _instead(champion: int | None) -> str:
    if champion is None:
        return "The model has no version to serve yet."
    return f"Fetch version {champion}, the champion."
