"""The scheduler through what it returns."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from service.engine.scheduler import MAX_ADMISSIONS, Row, Scheduler
from service.errors import QueueFull
from service.protocol.jobs import Job
from tests.support.engine_runs import make_job, noise_image

TINY = noise_image(8, 8)


def job(
    job_id: str,
    *,
    rows: int = 1,
    height: int = 512,
    width: int = 512,
    timeout_s: float = 1000.0,
    caller: str = "",
) -> Job:
    return make_job(
        job_id,
        height=height,
        width=width,
        seeds=tuple(range(rows)),
        image=TINY,
        timeout_s=timeout_s,
        caller=caller,
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
    assert [row.job.id for row in scheduler.schedule(0).running] == ["a"]
    first = scheduler.schedule(0).running
    assert [row.job.id for row in first] == ["a", "c"]
    for row in scheduler.advance(first):
        scheduler.remove(row.job.id)
    assert [row.job.id for row in scheduler.schedule(0).running] == ["b"]


@pytest.mark.parametrize(
    ("height", "width", "rows_per_row", "expected"),
    [
        (512, 512, 1, 8),
        (512, 640, 1, 6),
        (640, 640, 1, 5),
        (1024, 640, 1, 3),
        (1024, 1024, 1, 2),
        (512, 512, 2, 4),
        (1024, 1024, 2, 1),
        (256, 256, 1, 8),
    ],
)
def test_a_forward_is_capped_by_its_work(
    height: int, width: int, rows_per_row: int, expected: int
) -> None:
    """Eight rows are meant at 512 x 512: of larger shapes, or doubled, as many as cost the same."""
    scheduler = Scheduler(max_batch=8, max_waiting=8)
    large = job("a", rows=9, height=height, width=width)
    scheduler.add(large, num_steps=99, now=0, rows_per_row=rows_per_row)
    for _ in range(5):
        rows = scheduler.schedule(0).running
    assert len(rows) == expected


def test_a_row_beyond_the_batch_s_work_runs_alone() -> None:
    """However little is allowed, each row gets its steps."""
    scheduler = Scheduler(max_batch=1, max_waiting=8)
    large = job("a", rows=2, height=1024, width=1024)
    scheduler.add(large, num_steps=4, now=0, rows_per_row=2)
    assert len(scheduler.schedule(0).running) == 1


def test_jobs_take_turns_at_slots_a_row_each() -> None:
    """The tiles of a large job hold a newcomer up for no longer than a row, and none is lost."""
    scheduler = Scheduler(max_batch=1, max_waiting=8)
    scheduler.add(job("tiles", rows=3), num_steps=1, now=0)
    order = []
    for turn in range(5):
        if turn == 1:
            scheduler.add(job("live"), num_steps=1, now=0)
        for row in scheduler.advance(scheduler.schedule(0).running):
            order.append((row.job.id, row.index))
            scheduler.release(row)
    # The second tile stood in line before the newcomer came; the third stands behind it.
    assert order == [("tiles", 0), ("tiles", 1), ("live", 0), ("tiles", 2)]


def test_a_step_waits_for_few_encodes() -> None:
    """However many rows wait, two join at a time, so that the rows in flight go on."""
    scheduler = Scheduler(max_batch=8, max_waiting=8)
    scheduler.add(job("a", rows=25), num_steps=9, now=0)
    sizes = [len(scheduler.schedule(0).running) for _ in range(5)]
    assert sizes == [2, 4, 6, 8, 8]


def test_a_removed_job_gives_all_its_slots_back() -> None:
    """Rows in slots and rows that wait go together."""
    scheduler = Scheduler(max_batch=2, max_waiting=8)
    scheduler.add(job("a", rows=4), num_steps=4, now=0)
    scheduler.schedule(0)
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)
    assert scheduler.remove("a")
    assert not scheduler.remove("a")
    assert scheduler.num_running == 0
    assert not scheduler.has_work()


def test_a_full_queue_refuses() -> None:
    """One job more than may wait is refused; those that wait stay."""
    scheduler = Scheduler(max_batch=1, max_waiting=1)
    scheduler.add(job("a"), num_steps=4, now=0)
    with pytest.raises(QueueFull):
        scheduler.add(job("b"), num_steps=4, now=0)
    assert scheduler.num_waiting == 1
    scheduler.schedule(0)
    scheduler.add(job("b"), num_steps=4, now=0)
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 1)


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


@pytest.mark.parametrize("max_batch", [1, 8])
def test_a_newcomer_among_a_flood_runs_at_the_next_step(max_batch: int) -> None:
    """However much one caller has waiting and running, another one's row joins at once."""
    scheduler = Scheduler(max_batch=max_batch, max_waiting=64)
    for number in range(40):
        scheduler.add(job(f"flood-{number}", caller="a", height=1024), num_steps=16, now=0)
    for _ in range(20):
        scheduler.advance(scheduler.schedule(0).running)
    scheduler.add(job("lone", caller="b"), num_steps=4, now=0)
    steps = [scheduler.schedule(0).running for _ in range(4)]
    assert all(rows[0].job.id == "lone" for rows in steps[:3])


def test_beside_a_flood_a_lone_caller_waits_no_more_than_twice() -> None:
    """Counted in steps, which no other work on the machine disturbs: 100 jobs, one at a time."""
    rng = random.Random(0)
    scheduler = Scheduler(max_batch=1, max_waiting=10_000)
    for number in range(1500):
        scheduler.add(job(f"flood-{number}", caller="a"), num_steps=4, now=0)
    taken: list[int] = []
    while len(taken) < 100:
        for _ in range(rng.randint(10, 30)):
            _run_step(scheduler)
        scheduler.add(job("lone", caller="b"), num_steps=4, now=0)
        steps = 1
        while not _run_step(scheduler) & {"lone"}:
            steps += 1
        taken.append(steps)
    assert max(taken) <= 2 * 4


def _run_step(scheduler: Scheduler) -> set[str]:
    """Run a step; return the jobs, of one row each, that are done with it."""
    done = scheduler.advance(scheduler.schedule(0).running)
    for row in done:
        scheduler.remove(row.job.id)
    return {row.job.id for row in done}


def test_rows_that_are_done_take_nobody_s_slot() -> None:
    """While eight pictures are on their way, eight more rows run; a row is retired once."""
    scheduler = Scheduler(max_batch=8, max_waiting=64)
    scheduler.add(job("a", rows=16), num_steps=4, now=0)
    while not (done := scheduler.advance(scheduler.schedule(0).running)):
        pass
    leaving = []
    for _ in range(8):
        leaving += scheduler.retire()
        done += scheduler.advance(scheduler.schedule(0).running)
    assert len({row.index for row in leaving}) == len(leaving)
    assert set(leaving) <= set(done)
    assert len(done) == 16
    assert scheduler.num_running == 16, "none was released"


@pytest.mark.parametrize(("side", "expected"), [(512, 4), (640, 4), (1024, 2)])
def test_a_step_waits_for_few_decodes(side: int, expected: int) -> None:
    """However many rows are done at once, four are decoded, of large ones a batch's work."""
    scheduler = Scheduler(max_batch=8, max_waiting=8)
    scheduler.add(job("a", rows=8, height=side, width=side), num_steps=1, now=0)
    for _ in range(8):
        scheduler.advance(scheduler.schedule(0).running)
    assert len(scheduler.retire()) == expected


def test_a_row_that_is_run_again_is_retired_again() -> None:
    """It has the slot that it had, and its steps once more."""
    scheduler = Scheduler(max_batch=1, max_waiting=8)
    scheduler.add(job("a"), num_steps=1, now=0)
    scheduler.advance(scheduler.schedule(0).running)
    (row,) = scheduler.retire()
    assert scheduler.retire() == []
    scheduler.restart(row)
    assert scheduler.retire() == []
    assert scheduler.advance(scheduler.schedule(0).running) == [row]
    assert scheduler.retire() == [row]


def test_a_batch_that_was_too_large_is_halved_for_good() -> None:
    """After the device has run out of memory fewer rows share a step, and all still run."""
    scheduler = Scheduler(max_batch=4, max_waiting=8)
    scheduler.add(job("a", rows=4), num_steps=9, now=0)
    scheduler.schedule(0)
    assert len(scheduler.schedule(0).running) == 4
    for expected in (2, 1, 1):
        scheduler.lower_max_batch()
        assert len(scheduler.schedule(0).running) == expected


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_equal_over_random_floods(seed: int) -> None:
    """Of callers who always have work waiting none is ahead by more than the rows in flight.

    Whatever the size of their pictures and batches, and whoever comes and goes beside them.
    """
    rng = random.Random(seed)
    scheduler = Scheduler(max_batch=rng.choice([1, 2, 4]), max_waiting=10_000)
    heights = {"a": 1024, "b": 512, "c": rng.choice([512, 640])}
    work = dict.fromkeys(heights, 0.0)
    for number in range(500):
        for caller, height in heights.items():
            scheduler.add(
                job(f"{caller}{number}", caller=caller, height=height), num_steps=3, now=0
            )
    for turn in range(600):
        if turn > 50 and rng.random() < 0.2:
            scheduler.add(job(f"guest-{turn}", caller=f"guest-{turn % 3}"), num_steps=2, now=0)
        batch = scheduler.schedule(0)
        for row in batch.admitted:
            work[row.job.caller] = work.get(row.job.caller, 0) + 4.4 * row.job.params.step_work
        for row in batch.running:
            work[row.job.caller] = work.get(row.job.caller, 0) + row.job.params.step_work
        for row in scheduler.advance(batch.running):
            scheduler.remove(row.job.id)
        shares = [work[caller] for caller in heights]
        largest = (4.4 + 3) * 1024 * 512 / 512**2
        bound = (2 + scheduler.max_batch) * largest
        assert max(shares) - min(shares) <= bound, turn


@pytest.mark.parametrize("seed", range(20))
def test_invariants_hold_over_random_lives(seed: int) -> None:
    """Whatever happens: slots are never shared or lost, batches fit, and everybody gets an end."""
    rng = random.Random(seed)
    life = _Life(Scheduler(max_batch=rng.choice([1, 2, 4, 8]), max_waiting=6))
    rows_per_row = rng.choice([1, 2])  # of the checkpoint
    for turn in range(600):
        life.now += rng.random()
        if turn < 300 and rng.random() < 0.5:
            life.add(
                job(
                    str(turn),
                    rows=rng.randint(1, 6),
                    height=rng.choice([512, 640, 1024]),
                    width=rng.choice([128, 512, 1024]),
                    timeout_s=rng.choice([3.0, 1000.0]),
                    caller=rng.choice("abc"),
                ),
                num_steps=rng.randint(1, 5),
                rows_per_row=rows_per_row,
            )
        if life.rows_left and rng.random() < 0.1:
            life.remove(rng.choice(sorted(life.rows_left)))
        life.step(arrives=rng.random() < 0.7)
    assert not life.rows_left
    assert not life.scheduler.has_work()
    assert life.scheduler.num_running == life.scheduler.num_waiting == 0


@dataclass
class _Life:
    """A scheduler and what must be true of it: the rows that each job still has to end."""

    scheduler: Scheduler
    now: float = 0.0
    rows_left: dict[str, set[int]] = field(default_factory=dict)
    leaving: list[Row] = field(default_factory=list)  # their pictures are on their way
    admitted: set[str] = field(default_factory=set)  # jobs of which a row has had a slot

    def add(self, new: Job, num_steps: int, rows_per_row: int) -> None:
        try:
            self.scheduler.add(new, num_steps=num_steps, now=self.now, rows_per_row=rows_per_row)
        except QueueFull:
            assert self.scheduler.num_waiting == 6
        else:
            self.rows_left[new.id] = set(range(new.num_rows))

    def remove(self, job_id: str) -> None:
        assert self.scheduler.remove(job_id)
        del self.rows_left[job_id]
        self.leaving = [row for row in self.leaving if row.job.id != job_id]

    def step(self, *, arrives: bool) -> None:
        """Take a step; with `arrives` the pictures of the one before come."""
        batch = self.scheduler.schedule(self.now)
        for expired in batch.expired:
            del self.rows_left[expired.id]
            self.leaving = [row for row in self.leaving if row.job.id != expired.id]
        rows = batch.running
        assert len(rows) <= self.scheduler.max_batch
        work = sum(row.rows_per_row * row.job.params.step_work for row in rows)
        assert len(rows) == 1 or work <= self.scheduler.max_batch
        assert len({row.key for row in rows}) <= 1
        assert len({row.slot for row in rows}) == len(rows)
        assert all(0 <= row.slot < self.scheduler.num_slots for row in rows)
        assert len(batch.admitted) <= MAX_ADMISSIONS
        self.admitted |= {row.job.id for row in batch.admitted}
        assert self.scheduler.num_waiting == len(self.rows_left.keys() - self.admitted)
        assert not any(row.is_done for row in rows)
        came, self.leaving = (self.leaving, []) if arrives else ([], self.leaving)
        self.scheduler.advance(rows)
        left = self.scheduler.retire()
        assert rows or left or self.leaving or came or not self.scheduler.has_work(), "nothing runs"
        assert not set(left) & {*came, *self.leaving}, "a row is retired once"
        self.leaving += left
        self._release(came)
        taken = self.scheduler.num_running + len(self.scheduler.free_slots)
        assert taken == self.scheduler.num_slots

    def _release(self, rows: list[Row]) -> None:
        for row in rows:
            self.rows_left[row.job.id].remove(row.index)  # each row ends once, and is known
            self.scheduler.release(row)
            if not self.rows_left[row.job.id]:
                self.remove(row.job.id)
