"""Short ways to say what the tests need."""

from __future__ import annotations

from itertools import count

from engine.scheduling import CostCurve, Policy, Priority, Scheduler, Shape, Tick, WorkItem
from engine.scheduling.simulate import VirtualClock

SMALL: Shape = (4, 8, 8)
LARGE: Shape = (4, 16, 16)
BUCKETS = (1, 2, 4, 8)
HALVING = CostCurve({SMALL: {1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4}})
"""Batching wins a lot: a full bucket of 8 costs 0.3 s a row, 1 alone costs 1 s."""

_names = count()


def image(
    name: str | None = None,
    *,
    job: str | None = None,
    steps: int = 3,
    rows: int = 1,
    shape: Shape = SMALL,
    priority: Priority = Priority.INTERACTIVE,
    deadline: float | None = None,
    deterministic: bool = False,
) -> WorkItem:
    name = name or f"image-{next(_names)}"
    return WorkItem(
        id=name,
        job_id=job or name,
        steps=steps,
        rows=rows,
        shape=shape,
        priority=priority,
        deadline=deadline,
        deterministic=deterministic,
    )


def batch_image(name: str | None = None, *, steps: int = 3, rows: int = 1) -> WorkItem:
    return image(name, steps=steps, rows=rows, priority=Priority.BATCH)


class Bench:
    """A scheduler with its clock; `run` takes one tick and lets its time pass."""

    def __init__(
        self,
        *,
        buckets: tuple[int, ...] = BUCKETS,
        costs: CostCurve | None = None,
        deterministic_bucket: int = 4,
        max_waiting: int = 100,
        aging_seconds: float = 1000.0,
        headroom: float = 1.0,
        finish_seconds: float = 0.0,
    ) -> None:
        self.clock = VirtualClock()
        self.scheduler = Scheduler(
            self.clock,
            buckets,
            costs or CostCurve.from_dict(HALVING.to_dict()),
            Policy(
                deterministic_bucket=deterministic_bucket,
                max_waiting=max_waiting,
                aging_seconds=aging_seconds,
                headroom=headroom,
                finish_seconds=finish_seconds,
            ),
        )
        self.finish_seconds = finish_seconds

    def submit(self, *items: WorkItem) -> None:
        for item in items:
            self.scheduler.submit([item])

    def tick(self) -> Tick:
        tick = self.scheduler.next_tick()
        assert tick is not None
        return tick

    def run(self) -> tuple[list[str], list[str]]:
        """Return the ids that ran and those that finished."""
        tick = self.tick()
        self.clock.advance(tick.expected_seconds)
        finished = self.scheduler.complete(tick, tick.expected_seconds)
        self.clock.advance(self.finish_seconds * len(finished))
        return ids(tick), [item.id for item in finished]

    def run_until(self, item_id: str, limit: int = 1000) -> int:
        """Return how many ticks it took until an image finished."""
        for ticks in range(1, limit + 1):
            if item_id in self.run()[1]:
                return ticks
        raise AssertionError(f"{item_id} did not finish in {limit} ticks")


def ids(tick: Tick) -> list[str]:
    return [item.id for item in tick.items]
