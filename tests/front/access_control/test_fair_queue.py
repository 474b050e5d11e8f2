"""Turns of reading pictures, by what is granted when."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from service.front.access_control.fair_queue import FairSemaphore, Turn

MOST = 2


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(20))
def test_turns_hold_their_bounds_over_random_comings_and_goings(seed: int) -> None:
    """Never more than two at once nor two large, none idle beside who could run, none lost."""
    rng = random.Random(seed)

    async def scenario() -> None:
        turns = FairSemaphore(MOST)
        tasks: dict[asyncio.Task[Turn], bool] = {}
        running: list[Turn] = []
        for _ in range(300):
            kind = rng.random()
            if kind < 0.5:
                is_large = rng.random() < 0.4
                task = asyncio.ensure_future(turns.take(rng.choice("abc"), is_large=is_large))
                tasks[task] = is_large
            elif kind < 0.6 and tasks:
                rng.choice(list(tasks)).cancel()
            elif running:
                turns.give_back(running.pop(rng.randrange(len(running))), rng.random())
                if rng.random() < 0.3 and tasks:  # in the same moment as its turn may come
                    rng.choice(list(tasks)).cancel()
            if rng.random() < 0.7:
                await settle()
                for task in [task for task in tasks if task.done()]:
                    del tasks[task]
                    if not task.cancelled():
                        running.append(task.result())
                assert len(running) <= MOST
                assert sum(turn.is_large for turn in running) <= 1
                assert turns.num_waiting == len(tasks)
                if len(running) < MOST:
                    assert all(tasks.values()), "a small one waits beside a free place"
                    assert not tasks or any(turn.is_large for turn in running)
        while tasks or running:
            await settle()
            running += [task.result() for task in tasks if task.done() and not task.cancelled()]
            tasks = {task: is_large for task, is_large in tasks.items() if not task.done()}
            if running:
                turns.give_back(running.pop(), 1.0)
        assert turns.num_waiting == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("spent", [0.2, 1.0, 10.0])
def test_one_caller_s_crowd_holds_up_no_other(spent: float) -> None:
    """Beside a hundred of A's, large ones among them, at most one of A's goes before one of B's."""

    async def scenario() -> None:
        turns = FairSemaphore(MOST)
        order: list[str] = []

        async def one(caller: str, spent: float, *, is_large: bool = False) -> None:
            turn = await turns.take(caller, is_large=is_large)
            order.append(caller)
            await settle()
            turns.give_back(turn, spent)

        crowd = [asyncio.ensure_future(one("a", spent, is_large=i % 2 == 0)) for i in range(100)]
        for _ in range(20):
            await settle()
            before = len(order)
            await one("b", 1.0)
            assert Counter(order[before : order.index("b", before)])["a"] <= max(1, 1 / spent)
        await asyncio.gather(*crowd)
        assert Counter(order) == {"a": 100, "b": 20}

    asyncio.run(scenario())
