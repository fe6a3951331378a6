"""How a job makes its version, and what it tries next when the verdict is `fail`."""

from dataclasses import dataclass

from domain import functions
from domain.drift import Drift
from domain.errors import JobError
from domain.policy import Escalation, Policy
from domain.states import Mode
from worker.jobs.unlearn.cheaper import Outlook

OUTDATED = (
    "The model must be retrained, and its dataset has a later state than the one that it was "
    "trained on. Train it on that state without these samples, and register the weights with "
    "`POST /v1/models/{name}/versions`: that answers the request."
)
LEVELS = {None: 0, Escalation.MORE_CYCLES: 1, Escalation.STRONGER: 2}
"""The configuration level of the method for each step that changes the champion."""


HEAD = (
    "The head is fitted anew without the samples, on what a frozen backbone makes of the others: "
    "that is exact, and a matter of seconds."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps a job takes until a verdict is better than `fail`."""

    mode: Mode
    """The mode of the first round."""

    reason: str
    """Why this mode, in words."""

    steps: tuple[Escalation | None, ...]
    """The step of each round; None for the first."""

    def mode_of(self, step: Escalation | None) -> Mode:
        if step is None:
            return self.mode
        return Mode.EXACT if step is Escalation.RETRAIN else Mode.APPROXIMATE


def plan(
    policy: Policy,
    drift: Drift,
    *,
    exact_asked: bool,
    recipe: str | None,
    forget: int,
    remaining: int,
    outdated: bool = False,
    outlook: Outlook | None = None,
) -> Plan:
    """Decide between changing the champion and retraining.

    Args:
        outdated: whether the dataset has a later state than the one that the champion was trained
            on: then nobody but its team trains it anew.
        drift: the champion's.
        exact_asked: a request of the job accepts only exact mode.
        recipe: the recipe that retrains the model, if it has one.
        forget: number of samples to forget.
        remaining: number of training samples the champion has not forgotten, these included.
        outlook: what waits, and what either way takes: it decides where nothing else does. Without
            it, the model is changed.

    Raises:
        JobError: only a retraining would do, and the model has no recipe.
    """
    if functions.is_head(recipe):  # nothing is cheaper, and nothing else is as sure
        return Plan(Mode.EXACT, HEAD, (None,))
    share = forget / remaining
    if outdated:
        recipe = None
        if exact_asked or policy.mode == "exact" or share > policy.max_forget_share:
            raise JobError(OUTDATED)
    if exact_asked:
        return _exact("a request asks for it", recipe)
    if policy.mode == "exact":
        return _exact("its policy says `exact`", recipe)
    if share > policy.max_forget_share:
        return _exact(
            f"{share:.0%} of its training samples are to be forgotten, more than the "
            f"{policy.max_forget_share:.0%} of its policy: retraining is cheaper than forgetting",
            recipe,
        )
    drifts_away = drift.further(forgotten=forget).exceeds(policy.drift)
    if drifts_away and recipe is not None:
        return _exact("otherwise it would drift beyond its policy's limits", recipe)
    steps = [step for step in policy.escalation if recipe or step is not Escalation.RETRAIN]
    others = [step for step in steps if step is not Escalation.RETRAIN]
    reason = "The model is changed."
    if drifts_away:
        why = "its dataset has a later state" if outdated else "it has no recipe"
        reason = (
            "The model is changed, though that takes it beyond its policy's drift limits: "
            f"{why} to be retrained with."
        )
    elif recipe is not None and policy.mode == "approximate":
        reason = "The model is changed, because its policy says `approximate`."
    elif recipe is not None and outlook is not None:
        if outlook.retrains:  # if that is worth too little, nobody asked for it
            return Plan(Mode.EXACT, outlook.reason, (None, *others))
        reason = outlook.reason + outlook.advice
    return Plan(Mode.APPROXIMATE, reason, (None, *steps))


def _exact(why: str, recipe: str | None) -> Plan:
    if recipe is None:
        raise JobError(
            f"The model must be retrained, because {why}; but it has no recipe. Train it "
            "without these samples and register the weights with "
            "`POST /v1/models/{name}/versions`, or register it under another name with a "
            "`recipe` (`package.module:function`, on the allow-list LETHE_RECIPES), so that the "
            "job can do it."
        )
    return Plan(Mode.EXACT, f"The model is retrained, because {why}.", (None,))


def progress(number: int, share: float) -> float:
    """The progress of a job in the middle of a round, in [0, 1].

    Args:
        number: the round's, from 1. Most jobs need one; each further round is less likely.
        share: the part of the round that is done.
    """

    def done(rounds: int) -> float:
        return 1 - 0.9 * 0.15**rounds

    return done(number - 1) + share * (done(number) - done(number - 1))
