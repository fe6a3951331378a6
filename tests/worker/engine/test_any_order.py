"""Requests, jobs, decisions and losses, in any order and each of them once."""

from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from domain.states import Decision, JobStatus
from domain.tables import Job
from service.jobs import retry
from tests.worker.engine.any_order import SAMPLES, AnyOrder


def test_in_any_order_nothing_is_lost_and_nothing_done_twice(own_database_url):
    AnyOrder.url = own_database_url
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_each_of_them_happens_once(own_database_url):
    """Walks are random; this one comes past everything."""
    AnyOrder.url = own_database_url
    walk = AnyOrder()
    walk.two_models_of_one_dataset()
    names = iter(SAMPLES)

    def happens(step, *arguments, **named):
        step(*arguments, **named)
        for each in walk.invariants:
            each.function(walk)

    def ask(at_once=True):
        happens(walk.ask, [next(names)], "cnn", at_once)
        return list(walk.named)[-1]

    try:
        for how in ("pass", "fail", "release", "lose"):
            ask()
            happens(walk.end, walk.claims[-1], how=how)
            happens(walk.end, walk.claims[-1], how=how)  # its claim is lost
            happens(walk.plan_and_take)
            while walk.some(Job, JobStatus.RUNNING):
                happens(walk.end, walk.claims[-1], how="pass")
        happens(walk.as_client, "retry a job", partial(
            retry._retry, walk.session, walk.some(Job, JobStatus.FAILED)[0]
        ))  # fmt: skip
        happens(walk.plan_and_take)
        happens(walk.end, walk.claims[-1], how="pass")
        for decision in Decision:
            reviewed = ask()
            happens(walk.end, walk.claims[-1], how="review")
            happens(walk.decide_one, reviewed, decision)
            happens(walk.plan_and_take)
            while walk.some(Job, JobStatus.RUNNING):
                happens(walk.end, walk.claims[-1], how="pass")
        overtaken = ask()
        happens(walk.end, walk.claims[-1], how="review")
        ask()
        happens(walk.end, walk.claims[-1], how="pass")
        happens(walk.decide_one, overtaken, Decision.ACCEPT)
        happens(walk.plan_and_take)
        happens(walk.end, walk.claims[-1], how="review")
        happens(walk.cancel_one, ask(at_once=False))
        happens(walk.cancel_one, ask())
    finally:
        walk.teardown()
    happened = {"pass", "fail", "release", "lose", "review", "a lost claim", "retry a job"}
    happened |= {"cancel pending", "cancel running", "accept what was overtaken", *Decision}
    assert set(walk.seen) >= happened, happened - set(walk.seen)
