import asyncio

from domain import doorbell


async def test_who_asks_while_a_ring_is_under_way_shares_the_next_one(queue):
    await asyncio.gather(*(doorbell.ring_sweep_together(queue) for _ in range(50)))

    assert queue.send_task.call_count == 2


async def test_who_asks_later_is_heard_again(queue):
    for _ in range(3):
        await doorbell.ring_sweep_together(queue)

    assert queue.send_task.call_count == 3
