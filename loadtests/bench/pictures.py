"""Pictures of the quality report's pairs, drawn in several ways in turns: what each way costs and what it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.embedded.quality.accuracy import by_attribute, mean_of
from engine.embedded.quality.generate import Generator, Order
from engine.embedded.quality.pairs import Pairs
from engine.embedded.quality.reader import Reader
from engine.embedded.quality.settings import IDENTITY_BAR, MAIN, PROMPT_BAR, Setting

Pictures = NDArray[np.uint8]
Way = TypeVar("Way")


@dataclass(slots=True, kw_only=True)
class Drawn:
    """Hold what one way gave: seconds a picture of each round, and the pictures of all rounds."""

    seconds: list[float] = field(default_factory=list)
    pictures: list[Pictures] = field(default_factory=list)

    def draw(
        self,
        generator: Generator,
        orders: Sequence[Order],
        *,
        done: Callable[[int], object],
        together: int | None = None,
    ) -> None:
        """Draw a round, and tell ``done`` each time how many more pictures there are.

        together: begin so many at the same moment and wait for all of them, again and again; by default a picture
        begins when another one is done.
        """
        batch = together or len(orders)
        began = time.perf_counter()
        for first in range(0, len(orders), batch):
            for more in generator.generate(orders[first : first + batch]):
                done(more)
            self.pictures.append(generator.take())
        self.seconds.append((time.perf_counter() - began) / len(orders))

    @property
    def all_pictures(self) -> Pictures:
        """The pictures of all rounds, in order, ``[N, H, W, 3]``."""
        return np.concatenate(self.pictures)


def orders_of(
    pairs: Pairs,
    numbers: NDArray[np.int64],
    *,
    setting: Setting = MAIN,
    guided: tuple[float, float] = (0.0, 1.0),
) -> list[Order]:
    """Return the orders of these pairs, each with its number as its seed."""
    return [
        Order(
            prompt=pairs.prompt(number, setting),
            reference=pairs.reference(number, setting),
            seed=number,
            setting=setting,
            guided=guided,
        )
        for number in numbers.tolist()
    ]


def meet(generator: Generator, orders: Sequence[Order]) -> None:
    """Let a generator see prompts and references, each in a single step: whoever draws them first would pay for all."""
    brief = [replace(order, setting=replace(order.setting, steps=1), guided=(0.0, 1.0)) for order in orders]
    for _ in generator.generate(brief):
        pass


def in_turns(ways: Sequence[Way], number: int) -> Sequence[Way]:
    """Return the ways of a round, each time with another one first."""
    first = number % len(ways)
    return [*ways[first:], *ways[:first]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one way's pictures show: shares of who and scene that are read as asked for, and the mean difference from
    other pictures of the same pairs and seeds, of 255.
    """

    who: float
    scene: float
    difference: float

    @classmethod
    def of(cls, pictures: Pictures, exact: Pictures, pairs: Pairs, reader: Reader) -> Seen:
        """Read pictures of the first pairs, and compare them with other ones of the same."""
        names = tuple(reader.attributes)
        scores = by_attribute(reader.read(pictures), pairs.labels[: len(pictures)], names)
        return cls(
            who=mean_of(scores, IDENTITY_BAR),
            scene=mean_of(scores, PROMPT_BAR),
            difference=float(np.abs(exact.astype(int) - pictures).mean()),
        )

    @property
    def cells(self) -> str:
        """The columns of a table."""
        return f"{self.who:.1%} | {self.scene:.1%} | {self.difference:.1f}"


def sheet(rows: Sequence[Pictures]) -> Image.Image:
    """Lay pictures out: a row for each way, a column for each pair."""
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
