"""A seed gives one schedule, and a few seeds cover every kind of fault."""

from chaos.schedule import HOLDOUT, TRAIN, Kind, draw


def test_the_same_seed_gives_the_same_schedule():
    assert draw(7) == draw(7)
    assert str(draw(7)) == str(draw(7))
    assert draw(7) != draw(8)


def test_any_five_seeds_in_a_row_have_every_kind_of_fault():
    for first in range(40):
        kinds = {fault.kind for seed in range(first, first + 5) for fault in draw(seed).faults}
        assert kinds == set(Kind)


def test_ten_seeds_send_a_key_several_times_at_once_and_hang_up_and_cancel():
    sent = [submission for seed in range(1, 11) for submission in draw(seed).submissions]
    assert any(submission.copies > 1 for submission in sent)
    assert any(submission.impatient for submission in sent)
    assert any(submission.cancel_after is not None for submission in sent)


def test_requests_name_fresh_samples_and_share_some_of_them():
    for seed in range(20):
        named = [submission.samples for submission in draw(seed).submissions]
        assert all(0 <= position < TRAIN + HOLDOUT for samples in named for position in samples)
        assert all(len(set(samples)) == len(samples) > 0 for samples in named)
    shared = [{*first} & {*second} for seed in range(20)
              for first, second, *_ in [[s.samples for s in draw(seed).submissions]]]  # fmt: skip
    assert any(shared)


def test_a_schedule_says_what_it_does_and_when():
    told = str(draw(3))
    assert told.startswith("seed 3\n")
    assert all(f"fault   {fault.kind}" in told for fault in draw(3).faults)
    assert told.count("client") == len(draw(3).submissions)
    assert told.count("team") == len(draw(3).renewals) > 0


def test_every_third_schedule_registers_versions_and_some_states_with_and_without_care():
    schedules = [draw(seed) for seed in range(1, 31)]
    teams = [team for each in schedules for team in each.renewals]

    assert len(teams) == 10
    assert {team.careless for team in teams} == {True, False}
    assert {team.of_second for team in teams} == {True, False}
    assert {team.moves_on for team in teams} == {True, False}
    assert all(str(team) in str(each) for each in schedules for team in each.renewals)
