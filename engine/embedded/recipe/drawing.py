"""Draw one person in several scenes. Needs no torch, which every process that draws would have to load."""

from random import Random

import numpy as np
from numpy.typing import NDArray

from engine.embedded.world import Identity, Scene, render, sample_scene


def labels_of(identity: Identity, scene: Scene) -> list[int]:
    """Return all attributes as indices, in the order of `ATTRIBUTES`."""
    return [*identity.labels().values(), *scene.labels().values()]


def draw_person(work: tuple[Identity, str, int, int]) -> tuple[NDArray[np.uint8], list[list[int]]]:
    """Return pictures ``[scenes, size, size, 3]`` and their labels, of a person, a seed, how many scenes, and size."""
    identity, seed, count, size = work
    random = Random(seed)
    scenes = [sample_scene(random) for _ in range(count)]
    pictures = np.stack([np.asarray(render(identity, scene, size=size)) for scene in scenes])
    return pictures, [labels_of(identity, scene) for scene in scenes]
