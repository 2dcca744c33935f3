"""Render a portrait: a pure function of identity, scene and size."""

from PIL import Image

from engine.embedded.world.draw_background import draw_background
from engine.embedded.world.draw_hair import draw_back_hair, draw_facial_hair, draw_front_hair
from engine.embedded.world.draw_head import draw_body, draw_expression, draw_head
from engine.embedded.world.draw_wear import draw_glasses, draw_hat
from engine.embedded.world.identity import Identity
from engine.embedded.world.light import light_picture
from engine.embedded.world.pen import blank
from engine.embedded.world.scene import Scene

_ZOOM = {"medium": 0.9, "close-up": 1.22}
_CENTRE_Y = {"medium": 62.0, "close-up": 60.0}


def render(identity: Identity, scene: Scene, *, size: int = 128, oversample: int = 3) -> Image.Image:
    """Return an RGB portrait of `size` by `size` pixels.

    Drawn `oversample` times larger and averaged down, so that outlines are smooth.
    """
    image, page = blank(size, oversample, (255, 255, 255))
    draw_background(page, scene.background)
    to = (64.0 + scene.shift_x, _CENTRE_Y[scene.framing] + scene.shift_y)
    pen = page.moved(zoom=_ZOOM[scene.framing], centre=(64.0, 62.0), to=to)
    draw_back_hair(pen, identity)
    draw_body(pen, identity, scene.clothing)
    draw_head(pen, identity)
    draw_facial_hair(pen, identity)
    draw_expression(pen, identity, scene.expression)
    draw_front_hair(pen, identity)
    draw_glasses(pen, identity.glasses)
    draw_hat(pen, scene.hat)
    return light_picture(image.reduce(oversample), scene.light)
