"""Draw the reference portraits that ship with the model: people whom training never saw."""

from pathlib import Path

from engine.embedded.recipe.data import is_held_out
from engine.embedded.world import IDENTITY_VALUES, Identity, Scene, render

REFERENCE_SIZE = 256
NEUTRAL = Scene(
    background="white",
    clothing="white",
    garment="sweater",
    expression="neutral",
    gaze="ahead",
    light="soft",
    framing="medium",
    hat="none",
    style="flat",
)
# In the order of `IDENTITY_VALUES`; all of them held-out combinations.
_PEOPLE = {
    "ada": "pale red long green average thin long none none freckles oval",
    "bruno": "light black short green average bushy long beard none none round",
    "chike": "dark black curly brown close bushy broad none square none oval",
    "dora": "light pink bob blue average thin broad none round none oval",
    "emil": "tan blue spiky brown close thin broad none none freckles oval",
    "farah": "brown brown bun blue close thin long none none none round",
    "goro": "pale silver bald green average bushy long moustache square none square",
    "hana": "tan blond pigtails brown average thin broad none none none round",
}


def people() -> dict[str, Identity]:
    """Return who the references show; raises ValueError for someone whom training may have seen."""
    shown = {
        name: Identity(**dict(zip(IDENTITY_VALUES, traits.split(), strict=True)))
        for name, traits in _PEOPLE.items()
    }
    for name, identity in shown.items():
        if not is_held_out(identity):
            raise ValueError(f"{name} is not a held-out combination: {identity}")
    return shown


def draw_references(directory: Path) -> None:
    """Write the portraits, front-facing, 256x256, in a neutral scene."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, identity in people().items():
        render(identity, NEUTRAL, size=REFERENCE_SIZE).save(directory / f"{name}.png", optimize=True)
