"""The scheduler through what it returns."""

from __future__ import annotations

import random

import pytest

from service.engine.scheduler import Row, Scheduler
from service.errors import QueueFull
from service.jobs import Job
from tests.engine.runs import make_job, noise_image

TINY = noise_image(8, 8)


def job(job_id: str, *, rows: int = 1, height: int = 512, timeout_s: float = 1000.0) -> Job:
    return make_job(
        job_id, height=height, seeds=tuple(range(rows)), image=TINY, timeout_s=timeout_s
    )


def test_rows_of_one_shape_share_a_step_and_a_newcomer_joins() -> None:
    """Whoever has the same shape joins the running step, at a timestep of its own."""
    scheduler = Scheduler(max_batch=4, max_waiting=8)
    scheduler.add(job("a"), num_steps=4, now=0)
    scheduler.advance(scheduler.schedule(0).running)
    scheduler.add(job("b"), num_steps=8, now=0)
    running = scheduler.schedule(0).running
    assert [(row.job.id, row.step) for row in running] == [("a", 1), ("b", 0)]


def test_another_shape_waits_for_the_older_rows_only() -> None:
    """Rows of two shapes never share a step, and the older job goes first."""
    scheduler = Scheduler(max_batch=4, max_waiting=8)
    scheduler.add(job("a"), num_steps=1, now=0)
    scheduler.add(job("b", height=1024), num_steps=1, now=0)
    scheduler.add(job("c"), num_steps=1, now=0)
    first = scheduler.schedule(0).running
    assert [row.job.id for row in first] == ["a", "c"]
    for row in scheduler.advance(first):
        scheduler.remove(row.job.id)
    assert [row.job.id for row in scheduler.schedule(0).running] == ["b"]


def test_the_rows_of_a_job_are_admitted_and_removed_together() -> None:
    """A job of several rows takes all its slots at once and gives all of them back."""
    scheduler = Scheduler(max_batch=4, max_waiting=8)
    scheduler.add(job("a"), num_steps=4, now=0)
    scheduler.add(job("b", rows=4), num_steps=4, now=0)
    scheduler.schedule(0)
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 1)
    scheduler.remove("a")
    scheduler.schedule(0)
    assert (scheduler.num_running, scheduler.num_waiting) == (4, 0)
    assert scheduler.remove("b")
    assert not scheduler.has_work()


def test_a_job_wider_than_the_batch_runs_alone_in_parts() -> None:
    """On a bucket of 1 the rows of a job take their steps one after another."""
    scheduler = Scheduler(max_batch=1, max_waiting=8, num_slots=4)
    scheduler.add(job("a", rows=2), num_steps=2, now=0)
    seen = []
    for _ in range(4):
        rows = scheduler.schedule(0).running
        seen += [row.index for row in rows]
        scheduler.advance(rows)
    assert seen == [0, 0, 1, 1]
    assert scheduler.schedule(0).running == []


def test_a_full_queue_refuses() -> None:
    """One job more than may wait is refused; those that wait stay."""
    scheduler = Scheduler(max_batch=1, max_waiting=1)
    scheduler.add(job("a"), num_steps=4, now=0)
    with pytest.raises(QueueFull):
        scheduler.add(job("b"), num_steps=4, now=0)
    assert scheduler.num_waiting == 1
    with pytest.raises(ValueError, match="rows"):
        scheduler.add(job("c", rows=2), num_steps=4, now=0)


def test_jobs_expire_while_they_wait_and_while_they_run() -> None:
    """Past its deadline a job is told once and its slots are free."""
    scheduler = Scheduler(max_batch=1, max_waiting=8)
    scheduler.add(job("a", timeout_s=5), num_steps=4, now=0)
    scheduler.add(job("b", timeout_s=3), num_steps=4, now=0)
    assert scheduler.schedule(0).expired == []
    assert [expired.id for expired in scheduler.schedule(3).expired] == ["b"]
    batch = scheduler.schedule(5)
    assert [expired.id for expired in batch.expired] == ["a"]
    assert batch.running == []
    assert not scheduler.has_work()


@pytest.mark.parametrize("seed", range(20))
def test_invariants_hold_over_random_lives(seed: int) -> None:
    """Whatever happens: slots are never shared or lost, batches fit, and everybody gets an end."""
    rng = random.Random(seed)
    max_batch = rng.choice([1, 2, 4, 8])
    scheduler = Scheduler(max_batch=max_batch, max_waiting=6, num_slots=4)
    added: set[str] = set()
    ended: set[str] = set()
    now = 0.0
    for turn in range(400):
        now += rng.random()
        if turn < 300 and rng.random() < 0.5:
            new = job(
                str(turn),
                rows=rng.randint(1, 4),
                height=rng.choice([512, 640, 1024]),
                timeout_s=rng.choice([3.0, 1000.0]),
            )
            try:
                scheduler.add(new, num_steps=rng.randint(1, 5), now=now)
                added.add(new.id)
            except QueueFull:
                assert scheduler.num_waiting == 6
        if added - ended and rng.random() < 0.1:
            gone = rng.choice(sorted(added - ended))
            assert scheduler.remove(gone)
            ended.add(gone)
        _step(scheduler, now, ended, max_batch)
    assert added == ended
    assert not scheduler.has_work()
    assert scheduler.num_running == 0


def _step(scheduler: Scheduler, now: float, ended: set[str], max_batch: int) -> None:
    batch = scheduler.schedule(now)
    ended |= {expired.id for expired in batch.expired}
    rows = batch.running
    assert len(rows) <= max_batch
    assert len({row.key for row in rows}) <= 1
    assert len({row.slot for row in rows}) == len(rows)
    assert all(0 <= row.slot < scheduler.num_slots for row in rows)
    assert rows or not scheduler.has_work(), "work waits, and nothing runs"
    assert not ended & {row.job.id for row in rows}
    scheduler.advance(rows)
    _remove_done(scheduler, rows, ended)


def _remove_done(scheduler: Scheduler, rows: list[Row], ended: set[str]) -> None:
    for row in rows:
        is_last = row.index == row.job.num_rows - 1
        if row.is_done and is_last and row.job.id not in ended:
            scheduler.remove(row.job.id)
            ended.add(row.job.id)
