"""What is costly to look for is looked for once, however many ask."""

import asyncio

import pytest

from service.kept import Kept


class Looker:
    """Counts how often it is asked, and answers with that number once it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.fails = False

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.may_answer.wait()
        if self.fails:
            raise OSError("away")
        return number


async def test_all_who_ask_at_once_share_one_look():
    looker = Looker()
    kept = Kept(looker, fresh_s=60)

    assert set(await asyncio.gather(*(kept.get() for _ in range(24)))) == {1}
    assert await kept.get() == 1


async def test_an_old_answer_is_given_while_the_next_is_looked_for():
    looker = Looker()
    kept = Kept(looker, fresh_s=0, stale_s=60, patience_s=0.05)
    assert await kept.get() == 1
    looker.may_answer.clear()

    assert await asyncio.gather(*(kept.get() for _ in range(24))) == [1] * 24
    assert looker.asked == 2
    looker.may_answer.set()
    await asyncio.sleep(0)
    assert await kept.get() >= 2


async def test_an_answer_that_is_too_old_is_not_given():
    looker = Looker()
    kept = Kept(looker, fresh_s=0, stale_s=0, patience_s=0)
    await kept.get()
    looker.may_answer.clear()
    asking = asyncio.create_task(kept.get())
    await asyncio.sleep(0.05)

    assert not asking.done()
    looker.may_answer.set()
    assert await asking == 2


async def test_who_goes_away_does_not_take_the_look_from_the_others():
    looker = Looker()
    looker.may_answer.clear()
    kept = Kept(looker, fresh_s=60)
    first, second = asyncio.create_task(kept.get()), asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    first.cancel()
    looker.may_answer.set()

    assert await second == 1
    await kept.close()


async def test_a_failure_is_told_to_all_and_looked_for_again():
    looker = Looker()
    looker.fails = True
    kept = Kept(looker, fresh_s=60)
    for _ in range(3):
        with pytest.raises(OSError, match="away"):
            await kept.get()
    assert looker.asked == 1

    kept.fresh_s, looker.fails = 0, False
    assert await kept.get() == 2
