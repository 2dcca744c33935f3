"""Draw stylised portraits: an `Identity` says who is in the picture, a `Scene` says what surrounds them."""

from engine.embedded.world.caption import caption
from engine.embedded.world.identity import IDENTITY_VALUES, Identity
from engine.embedded.world.render import render
from engine.embedded.world.sample import sample_identity, sample_scene
from engine.embedded.world.scene import SCENE_VALUES, Scene

__all__ = [
    "IDENTITY_VALUES",
    "SCENE_VALUES",
    "Identity",
    "Scene",
    "caption",
    "render",
    "sample_identity",
    "sample_scene",
]
