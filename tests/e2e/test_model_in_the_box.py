"""What make demo shows, measured: the prompt decides the scene, the reference decides who."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from limner_client import Client
from numpy.typing import NDArray

from engine.embedded import reference_portraits
from tools.local_server import LocalServer

SEEDS = 2
Picture = NDArray[np.float64]
Make = Callable[..., Picture]


@pytest.fixture(scope="module")
def make(server: LocalServer) -> Make:
    """Return the mean picture of a few seeds, `[H, W, 3]` in 0..255."""

    def mean(prompt: str, reference: Path | None, **settings: float) -> Picture:
        with Client(server.target) as client:
            portrait = client.generate(
                prompt, reference, seed=11, image_count=SEEDS, steps=12, guidance_scale=3.0, **settings
            )
        pictures = [np.asarray(image.to_pil().convert("RGB"), dtype=np.float64) for image in portrait.images]
        return np.mean(pictures, axis=0)

    return mean


def corners(picture: Picture) -> NDArray[np.float64]:
    """Return the mean colour of the upper corners, which show the background."""
    side = len(picture) // 6
    return np.concatenate([picture[:side, :side], picture[:side, -side:]]).mean(axis=(0, 1))


def face(picture: Picture) -> NDArray[np.float64]:
    """Return the mean colour of the middle of the face."""
    side = len(picture)
    return picture[int(0.45 * side) : int(0.65 * side), int(0.4 * side) : int(0.6 * side)].mean(axis=(0, 1))


def test_the_prompt_decides_the_background(make: Make) -> None:
    ada = reference_portraits()["ada"]
    blue = corners(make("a portrait of a person, on a blue background", ada))
    yellow = corners(make("a portrait of a person, on a yellow background", ada))
    assert blue[2] > blue[0] + 40
    assert yellow[0] > yellow[2] + 40


def test_the_reference_decides_who(make: Make) -> None:
    people = reference_portraits()
    prompt = "a portrait of a person, on a white background, soft light"
    pale, dark = (face(make(prompt, people[name])) for name in ("ada", "chike"))
    assert pale.mean() > dark.mean() + 40


def test_at_scale_zero_the_reference_says_nothing(make: Make) -> None:
    people = reference_portraits()
    prompt = "a portrait of a person, on a white background, soft light"
    one, other = (make(prompt, people[name], ip_adapter_scale=0.0) for name in ("ada", "chike"))
    assert np.abs(one - other).max() <= 1
