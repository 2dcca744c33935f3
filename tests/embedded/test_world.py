from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from engine.embedded.world import (
    IDENTITY_VALUES,
    SCENE_VALUES,
    Identity,
    Scene,
    caption,
    render,
    sample_identity,
    sample_scene,
    words,
)


def drawn(seed: int) -> tuple[Identity, Scene]:
    random = Random(seed)
    return sample_identity(random), sample_scene(random)


def pixels(identity: Identity, scene: Scene) -> np.ndarray:
    return np.asarray(render(identity, scene, size=64)).astype(int)


def test_same_seed_draws_the_same_picture() -> None:
    first, second = drawn(7), drawn(7)
    assert first == second
    assert render(*first).tobytes() == render(*second).tobytes()


def test_picture_has_the_asked_for_size() -> None:
    image = render(*drawn(0), size=96)
    assert image.size == (96, 96)
    assert image.mode == "RGB"


@pytest.mark.parametrize("name", IDENTITY_VALUES)
def test_every_identity_value_changes_the_picture(name: str) -> None:
    identity, scene = drawn(1)
    scene = replace(scene, hat="none", expression="neutral", framing="close-up", light="soft")
    identity = replace(identity, hair_style="short")
    pictures = {
        pixels(replace(identity, **{name: value}), scene).tobytes() for value in IDENTITY_VALUES[name]
    }
    assert len(pictures) == len(IDENTITY_VALUES[name])


@pytest.mark.parametrize("name", SCENE_VALUES)
def test_every_scene_value_changes_the_picture(name: str) -> None:
    identity, scene = drawn(2)
    changed = (replace(scene, **{name: value}) for value in SCENE_VALUES[name])  # type: ignore[arg-type]
    pictures = {pixels(identity, other).tobytes() for other in changed}
    assert len(pictures) == len(SCENE_VALUES[name])


def test_unknown_value_is_refused() -> None:
    identity, scene = drawn(3)
    with pytest.raises(ValueError, match="hair_style must be one of"):
        replace(identity, hair_style="mullet")
    with pytest.raises(ValueError, match="light must be one of"):
        replace(scene, light="neon")


def test_caption_mentions_every_scene_value_when_nothing_is_left_out() -> None:
    random = Random(4)
    for _ in range(50):
        scene = sample_scene(random)
        text = caption(scene, random, keep=1.0)
        assert scene.clothing in text
        assert any(word in text for word in words.BACKGROUND[scene.background])
        assert any(word in text for word in words.EXPRESSION[scene.expression])
        if scene.hat != "none":
            assert any(word in text for word in words.HAT[scene.hat])
        if scene.light != "soft":
            assert any(word in text for word in words.LIGHT[scene.light])


def test_caption_describes_the_person_only_when_given() -> None:
    random = Random(5)
    identity, scene = drawn(5)
    assert f"{identity.eyes} eyes" in caption(scene, random, identity=identity, keep=1.0)
    assert not any("eyes" in caption(scene, random) for _ in range(50))


def test_caption_leaves_parts_out_at_random() -> None:
    random = Random(6)
    _, scene = drawn(6)
    told = Counter(scene.clothing in caption(scene, random, keep=0.5) for _ in range(200))
    assert 50 < told[True] < 150
