"""Draw the reference portraits that ship with the model: people whom training never saw."""

from pathlib import Path

from engine.embedded.recipe.data import is_held_out
from engine.embedded.world import IDENTITY_VALUES, Identity, Scene, render

REFERENCE_SIZE = 256
NEUTRAL = Scene(
    background="white", clothing="white", expression="neutral", light="soft", framing="medium", hat="none"
)
# In the order of `IDENTITY_VALUES`; all of them held-out combinations.
_PEOPLE = {
    "ada": "pale red long blue none none round",
    "bruno": "pale black short blue none beard round",
    "chike": "dark black curly blue none none square",
    "dora": "light pink bob green round none round",
    "emil": "brown blond spiky blue square none square",
    "farah": "tan brown long blue none none square",
    "goro": "light silver short blue none moustache square",
    "hana": "tan blue pigtails green none none oval",
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
