"""What the champion's network gets: who may look at it, and that somebody did."""

from pathlib import Path

from anyio.to_thread import run_sync
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from domain import objects, trail
from domain.errors import NotFound, no_such
from domain.events import PreviewFetched
from domain.states import VersionStatus
from domain.tables import Model, ModelVersion
from service.dependencies import Sessions
from service.fields import Out

PICTURE, FIGURES = "image/png", "application/json"
PARTS = (
    (objects.PREVIEW_PICTURE, PICTURE, True),
    (objects.PREVIEW_FIGURES, FIGURES, False),
)


class SpecimenRead(Out):
    """One sample as the network gets it, and its answer. It is not told which sample it is."""

    label: int
    """The label of the sample, as the model numbers classes."""

    answer: int
    """The class that the network answers with."""

    confidence: float
    """The probability that the network gives to its answer, from 0 to 1."""

    smallest: float
    """The smallest value of the input."""

    largest: float
    """The largest value of the input."""

    mean: float
    """The mean of all values of the input."""

    values: list[float]
    """The first values of the input, at most 64, in the order of its dimensions. Token ids are
    whole numbers."""


class PreviewRead(Out):
    """Sample inputs as the network gets them, after preprocessing, with its answers."""

    shape: list[int]
    """The shape of one input, such as channels, height and width."""

    type: str
    """The type of its values, such as `float32`, or `int64` for token ids."""

    samples: list[SpecimenRead] = Field(max_length=10)
    """At most ten samples: hold-out or test samples where there are any, of as many classes as
    possible."""


async def read(
    sessions: Sessions, store: Path, name: str, *, picture: bool | None
) -> tuple[bytes, str]:
    """What was made of the champion's inputs to be looked at: PNG, or JSON as `PreviewRead`.

    That somebody looks is noted in the audit trail, in the same transaction: it is personal data.

    Args:
        picture: whether the picture is wanted, or the figures; None for the picture if there is
            one.

    Returns:
        The content and its media type.

    Raises:
        NotFound: there is no such model, or nothing to see of its champion.
    """
    async with sessions.begin() as session:
        champion = await _champion(session, name)
        for what, media_type, is_picture in PARTS:
            if picture not in (None, is_picture):
                continue
            place = objects.beside(store, champion.reservoir_sha256, what)
            content = await run_sync(_content, place)
            if content is not None:
                fetched = PreviewFetched(model=champion.model_id, number=champion.number)
                trail.record(session, "api", champion.id, fetched)
                return content, media_type
    if picture:
        raise NotFound(
            f"There is no picture of the inputs of the model {name!r}: they are not images, or its "
            f"version {champion.number} was made before there were previews. Ask for "
            f"`{FIGURES}` instead."
        )
    raise NotFound(
        f"There is no preview of version {champion.number} of the model {name!r}: an earlier "
        "release made it. Its next version will have one."
    )


async def _champion(session: AsyncSession, name: str) -> ModelVersion:
    model_id = await session.scalar(select(Model.id).filter_by(name=name))
    if model_id is None:
        raise no_such(f"model {name!r}", listed_at="/v1/models")
    champion = await session.scalar(
        select(ModelVersion)
        .filter_by(model_id=model_id, status=VersionStatus.CHAMPION)
        .with_for_update(read=True)
    )
    if champion is None:
        raise NotFound(
            f"The model {name!r} has no version yet. `GET /v1/models/{name}` says how far its "
            "registration is."
        )
    return champion


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def wants_picture(accept: str) -> bool | None:
    """Whether an `Accept` header names the picture, or the figures; None if both or neither."""
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    picture, figures = PICTURE in named or "image/*" in named, FIGURES in named
    return None if picture == figures else picture
