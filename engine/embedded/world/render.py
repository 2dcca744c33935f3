"""Render a portrait: a pure function of identity, scene and size."""

from dataclasses import replace
from functools import lru_cache

from PIL import Image

from engine.embedded.world.draw_background import draw_background
from engine.embedded.world.draw_body import draw_body
from engine.embedded.world.draw_expression import draw_expression
from engine.embedded.world.draw_hair import draw_back_hair, draw_facial_hair, draw_front_hair
from engine.embedded.world.draw_head import draw_head
from engine.embedded.world.draw_wear import draw_glasses, draw_hat
from engine.embedded.world.identity import Identity
from engine.embedded.world.light import light_picture
from engine.embedded.world.pen import WORLD_SIZE, pen_on
from engine.embedded.world.scene import Scene
from engine.embedded.world.style import BLOCKS, style_picture

_ZOOM = {"medium": 0.98, "close-up": 1.28}
_CENTRE_Y = {"medium": 62.0, "close-up": 60.5}
# Pixel art keeps eyes, mouth and glasses readable by bolder lines and by moving in whole blocks.
_PIXEL_BOLD = 1.45
_BLOCK = WORLD_SIZE / BLOCKS


def render(identity: Identity, scene: Scene, *, size: int = 128, oversample: int = 3) -> Image.Image:
    """Return an RGB portrait of `size` by `size` pixels.

    Drawn `oversample` times larger and averaged down, so that outlines are smooth.
    """
    image = _background(scene.background, size * oversample).copy()
    shift_x, shift_y, bold = scene.shift_x, scene.shift_y, 1.0
    if scene.style == "pixel":
        shift_x, shift_y, bold = (
            _BLOCK * round(shift_x / _BLOCK),
            _BLOCK * round(shift_y / _BLOCK),
            _PIXEL_BOLD,
        )
    to = (64.0 + shift_x, _CENTRE_Y[scene.framing] + shift_y)
    pen = pen_on(image).moved(zoom=_ZOOM[scene.framing], centre=(64.0, 62.0), to=to)
    features = replace(pen, bold=bold)
    draw_back_hair(pen, identity, covered=scene.hat != "none")
    draw_body(pen, identity, scene.clothing, scene.garment)
    draw_head(pen, identity)
    draw_facial_hair(pen, identity)
    draw_expression(features, identity, scene.expression, scene.gaze)
    draw_front_hair(pen, identity)
    draw_glasses(features, identity)
    draw_hat(pen, scene.hat)
    flat = image.reduce(oversample)
    return style_picture(flat, light_picture(flat, scene.light), scene.style)


@lru_cache(maxsize=24)
def _background(background: str, side: int) -> Image.Image:
    image = Image.new("RGB", (side, side))
    draw_background(pen_on(image), background)
    return image
