"""The demo asks for what the model in the box knows."""

from __future__ import annotations

import itertools

import pytest

from engine.embedded.world import SCENE_VALUES, words
from tools.demo import SCENES

KNOWN = {
    phrase
    for table in (words.BACKGROUND, words.EXPRESSION, words.LIGHT, words.FRAMING)
    for phrase in itertools.chain.from_iterable(table.values())
}
KNOWN |= {
    form.format(colour=colour, garment=garment)
    for form in words.CLOTHES
    for colour in SCENE_VALUES["clothing"]
    for garments in words.GARMENT.values()
    for garment in garments
}
KNOWN |= {f"wearing {hat}" for hats in words.HAT.values() for hat in hats}
KNOWN |= {medium.format(person=f"a {person}") for medium in words.MEDIUM for person in words.PERSON}


@pytest.mark.parametrize("scene", SCENES)
def test_every_phrase_is_one_of_the_worlds(scene: str) -> None:
    assert not [phrase for phrase in scene.split(", ") if phrase not in KNOWN]
