from collections import Counter
from dataclasses import replace
from itertools import combinations
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
from engine.embedded.world.sample import MAX_SHIFT, USUAL


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
    scene = replace(scene, style="flat")
    identity = replace(identity, hair_style="short")
    pictures = {
        pixels(replace(identity, **{name: value}), scene).tobytes() for value in IDENTITY_VALUES[name]
    }
    assert len(pictures) == len(IDENTITY_VALUES[name])


@pytest.mark.parametrize("name", SCENE_VALUES)
def test_every_scene_value_changes_the_picture(name: str) -> None:
    identity, scene = drawn(2)
    scene = replace(scene, style="flat", expression="neutral")
    changed = (replace(scene, **{name: value}) for value in SCENE_VALUES[name])  # type: ignore[arg-type]
    pictures = {pixels(identity, other).tobytes() for other in changed}
    assert len(pictures) == len(SCENE_VALUES[name])


def test_unknown_value_is_refused() -> None:
    identity, scene = drawn(3)
    with pytest.raises(ValueError, match="hair_style must be one of"):
        replace(identity, hair_style="mullet")
    with pytest.raises(ValueError, match="light must be one of"):
        replace(scene, light="neon")


@pytest.mark.parametrize("hat", SCENE_VALUES["hat"])
def test_hair_styles_differ_under_every_hat(hat: str) -> None:
    identity, scene = drawn(1)
    scene = replace(scene, hat=hat, style="flat", light="soft", framing="close-up", background="white")
    identity = replace(identity, hair_colour="brown", skin="light")
    pictures = [pixels(replace(identity, hair_style=style), scene) for style in IDENTITY_VALUES["hair_style"]]
    for first, second in combinations(pictures, 2):
        assert (np.abs(first - second).max(axis=2) > 60).sum() > 30


@pytest.mark.parametrize("style", SCENE_VALUES["style"])
def test_styles_are_deterministic(style: str) -> None:
    identity, scene = drawn(8)
    scene = replace(scene, style=style)
    assert render(identity, scene).tobytes() == render(identity, scene).tobytes()


@pytest.mark.parametrize("framing", SCENE_VALUES["framing"])
def test_pixel_art_is_constant_in_blocks_of_four(framing: str) -> None:
    identity, scene = drawn(9)
    image = np.asarray(render(identity, replace(scene, style="pixel", framing=framing)))
    blocks = image.reshape(32, 4, 32, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("name", ["expression", "gaze", "light", "hat", "garment"])
@pytest.mark.parametrize("style", ["sketch", "watercolour", "pixel"])
def test_every_style_shows_the_scene(style: str, name: str) -> None:
    identity, scene = drawn(2)
    scene = replace(scene, style=style, expression="neutral", gaze="ahead", light="soft", hat="none")
    changed = (replace(scene, **{name: value}) for value in SCENE_VALUES[name])  # type: ignore[arg-type]
    assert len({render(identity, other).tobytes() for other in changed}) == len(SCENE_VALUES[name])


def test_samples_follow_their_shares() -> None:
    random, count = Random(10), 4000
    people = [sample_identity(random) for _ in range(count)]
    scenes = [sample_scene(random) for _ in range(count)]
    drawn_values = [(IDENTITY_VALUES, people), (SCENE_VALUES, scenes)]
    for values, items in drawn_values:
        for name, allowed in values.items():
            told = Counter(getattr(item, name) for item in items)
            usual, share = USUAL.get(name, (allowed[0], 1 / len(allowed)))
            for value in allowed:
                expected = share if value == usual else (1 - share) / (len(allowed) - 1)
                assert told[value] / count == pytest.approx(expected, abs=0.03)
    assert all(abs(s.shift_x) <= MAX_SHIFT and abs(s.shift_y) <= MAX_SHIFT for s in scenes)


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
        if scene.gaze != "ahead" and scene.expression != "laugh":
            assert any(word in text for word in words.GAZE[scene.gaze])
        if scene.style != "flat":
            openings = (word.format(person="") for word in words.OPENING[scene.style])
            told = (word.removeprefix("a ") for word in (*openings, *words.STYLE[scene.style]))
            assert any(word in text for word in told)
        garment = any(word in text for word in words.GARMENT[scene.garment])
        assert garment or any(word.format(colour=scene.clothing) in text for word in words.CLOTHES_PLAIN)


def test_caption_describes_the_person_only_when_given() -> None:
    random = Random(5)
    identity, scene = drawn(5)
    assert f"{identity.eyes} eyes" in caption(scene, random, identity=identity, keep=1.0)
    assert not any("eyes" in caption(scene, random) for _ in range(50))


def test_caption_of_a_person_mentions_what_tells_them_apart() -> None:
    random = Random(11)
    for _ in range(100):
        identity = sample_identity(random)
        text = caption(sample_scene(random), random, identity=identity, keep=1.0)
        assert any(word in text for word in words.SKIN[identity.skin])
        assert any(word in text for word in words.HAIR_COLOUR[identity.hair_colour])
        for name, table in (("glasses", words.GLASSES), ("facial_hair", words.FACIAL_HAIR)):
            value = getattr(identity, name)
            assert value == "none" or any(word in text for word in table[value])


def test_small_traits_are_mentioned_in_about_six_of_ten_captions() -> None:
    random, (identity, scene) = Random(12), drawn(12)
    identity = replace(identity, freckles="freckles", glasses="none", eye_spacing="wide", face="oval")
    texts = [caption(scene, random, identity=identity) for _ in range(1000)]
    for word, share in (("freckle", 0.6), ("nose", 0.6), ("set wide", 0.3), ("no glasses", 0.1)):
        assert sum(word in text for text in texts) / len(texts) == pytest.approx(share, abs=0.1)


def test_caption_says_nothing_twice() -> None:
    random = Random(14)
    for _ in range(200):
        scene = replace(sample_scene(random), clothing="purple", expression="surprised")
        text = caption(scene, random, keep=1.0)
        assert text.count("purple") == 1
        assert 1 <= sum(text.count(word) for word in ("surprised", "astonished", "shocked")) <= 2


def test_some_captions_of_a_person_begin_with_the_traits() -> None:
    random, (identity, scene) = Random(13), drawn(13)
    texts = [caption(scene, random, identity=identity) for _ in range(1000)]
    bare = sum(not any(person in text for person in words.PERSON) for text in texts)
    assert bare / len(texts) == pytest.approx(0.2, abs=0.05)


def test_caption_leaves_parts_out_at_random() -> None:
    random = Random(6)
    _, scene = drawn(6)
    told = Counter(scene.clothing in caption(scene, random, keep=0.5) for _ in range(200))
    assert 50 < told[True] < 150
