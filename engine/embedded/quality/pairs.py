"""Choose what the report generates: people whom training never saw, in scenes drawn at random."""

from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from engine.embedded.quality.settings import Setting
from engine.embedded.recipe.data import Drawings, identity_of, scene_of
from engine.embedded.recipe.references import NEUTRAL
from engine.embedded.world import caption, render

_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Hold pairs of a person and a scene; pair `n` shows person `n` of the drawings and is generated from seed `n`.

    `target` and `elsewhere` are `[N]` rows of `drawings`: the picture asked for, and the reference, which shows
    the same person in another scene. `spare` are rows of other pictures of these people, none of them a
    target, for the Frechet distance. Captions say everything about the scene; `described` also says who.
    """

    drawings: Drawings
    target: NDArray[np.int64]
    elsewhere: NDArray[np.int64]
    spare: NDArray[np.int64]
    plain: tuple[str, ...]
    described: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Return what each picture is told to show, `[N, A]`."""
        return self.drawings.labels[self.target]

    def prompt(self, number: int, setting: Setting) -> str:
        """Return the text of pair `number`."""
        return (self.described if setting.describe else self.plain)[number]

    def reference(self, number: int, setting: Setting) -> NDArray[np.uint8] | None:
        """Return the reference drawing of pair `number`, `[128, 128, 3]`, or None."""
        if setting.reference is None:
            return None
        if setting.reference == "neutral":
            person = identity_of(self.drawings.labels[self.target[number]])
            return np.asarray(render(person, NEUTRAL, size=self.drawings.images.shape[1]))
        return np.array(self.drawings.images[self.elsewhere[number]])


def choose_pairs(drawings: Drawings, count: int) -> Pairs:
    """Return the first `count` pairs; the choice depends on nothing but the drawings.

    Raises ValueError for more pairs than people, or drawings of one scene a person.
    """
    people = len(drawings) // drawings.scenes
    if count > people:
        raise ValueError(f"{count} pairs need as many people; {people} are drawn")
    if drawings.scenes < 2:
        raise ValueError("a reference in another scene needs two drawings of each person")
    target = np.arange(count, dtype=np.int64) * drawings.scenes
    # One generator a pair: pair n is the same however many are chosen.
    random = [Random(f"{_SEED}/{number}") for number in range(count)]
    elsewhere = [t + chance.randrange(1, drawings.scenes) for t, chance in zip(target, random, strict=True)]
    plain, described = [], []
    for row, chance in zip(target, random, strict=True):
        labels = drawings.labels[row]
        plain.append(caption(scene_of(labels), chance, keep=1.0))
        described.append(caption(scene_of(labels), chance, identity=identity_of(labels), keep=1.0))
    return Pairs(
        drawings=drawings,
        target=target,
        elsewhere=np.array(elsewhere, dtype=np.int64),
        spare=target + 1,
        plain=tuple(plain),
        described=tuple(described),
    )
