"""Train the text and image towers: contrastively, and with heads that read the drawn attributes back.

Text says its attributes plainly and is learnt in minutes; telling hair styles apart under hats takes the image
tower longer. So it goes on alone, in a stage of its own, while the UNet already trains on the frozen text tower.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTokenizer

from engine.embedded.recipe.data import (
    ATTRIBUTES,
    IDENTITY_NAMES,
    Drawings,
    Gallery,
    identity_of,
    scene_of,
)
from engine.embedded.recipe.heads import Heads, pooled_state
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.supply import supply
from engine.embedded.recipe.towers import (
    augment,
    build_image_encoder,
    build_text_encoder,
    normalise,
    tokenise,
)
from engine.embedded.recipe.training import Plan, Start, averaged, train
from engine.embedded.recipe.workers import Crew
from engine.embedded.world import caption

PEOPLE_A_BATCH = 32


class _Told(NamedTuple):
    """Hold numbers of drawings `[2P]`, and `[P, 77]` tokens of what is said of the first of each person."""

    rows: Tensor
    ids: Tensor


def build_towers(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """Return the untrained text and image towers, and the heads that only training needs."""
    return nn.ModuleDict(
        {"text": build_text_encoder(tokenizer), "image": build_image_encoder(), "heads": Heads()}
    )


def train_clip(
    crew: Crew,
    drawings: Drawings,
    held_out: Drawings,
    tokenizer: CLIPTokenizer,
    directory: Path,
    *,
    minutes: float,
    seed: int = 1,
) -> None:
    """Train for a wall-clock budget; the weight averages end in `directory/clip.pt`.

    A batch holds two scenes of each person. The image embedding must name the person and tell people apart
    whatever the scene; the text states must name everything that was said, at the end token, at the last
    padding token and on average, since the UNet attends to all 77.
    """
    torch.manual_seed(seed)
    towers = build_towers(tokenizer)
    plan = Plan(
        name="clip", directory=directory, minutes=minutes, matrix_rate=0.01, vector_rate=2e-3, average=0.995
    )

    gallery = Gallery(drawings, crew.device)

    def draw_from(start: Start) -> Callable[[], _Told]:
        random = np.random.default_rng([seed, start.step, start.rank])
        words = Random(1000 * (start.step + 1) + start.rank)

        def draw() -> _Told:
            index = _pairs(drawings, random, crew.rows(PEOPLE_A_BATCH))
            texts = []
            for row in drawings.labels[index[::2]]:
                who = identity_of(row) if words.random() < 0.6 else None
                texts.append(caption(scene_of(row), words, identity=who))
            return _Told(torch.from_numpy(index), tokenise(tokenizer, texts))

        return draw

    def loss_from(start: Start) -> Callable[[], Tensor]:
        draw = supply(crew, start, draw_from)

        def loss() -> Tensor:
            told = draw()
            with crew.arithmetic():
                return _loss(towers, gallery, told)

        return loss

    def report(weights: dict[str, Tensor], progress: Progress) -> None:
        model = build_towers(tokenizer)
        model.load_state_dict(weights)
        print(f"\nclip step {progress.step}: {_accuracy(model, tokenizer, held_out)}", flush=True)

    train(crew, plan, towers, loss_from, report)


def train_image(
    crew: Crew,
    drawings: Drawings,
    held_out: Drawings,
    tokenizer: CLIPTokenizer,
    directory: Path,
    *,
    minutes: float,
    seed: int = 2,
) -> None:
    """Go on training the image tower that `train_clip` left; the weight averages end in `directory/image.pt`.

    Raises StageMissingError when there is none.
    """
    towers, trained = build_towers(tokenizer), averaged(directory / "clip.pt")
    towers.load_state_dict(trained)
    model = nn.ModuleDict({"image": towers["image"], "heads": towers["heads"]})
    plan = Plan(
        name="image", directory=directory, minutes=minutes, matrix_rate=0.01, vector_rate=1e-3, average=0.995
    )

    gallery = Gallery(drawings, crew.device)

    def loss_from(start: Start) -> Callable[[], Tensor]:
        random = np.random.default_rng([seed, start.step, start.rank])

        def loss() -> Tensor:
            index = _pairs(drawings, random, crew.rows(PEOPLE_A_BATCH))
            with crew.arithmetic():
                return _image_loss(model, gallery.pictures(index), gallery.labels(index))[0]

        return loss

    def report(weights: dict[str, Tensor], progress: Progress) -> None:
        shown = build_towers(tokenizer)
        shown.load_state_dict({**trained, **weights})
        print(f"\nimage step {progress.step}: {_accuracy(shown, tokenizer, held_out)}", flush=True)

    train(crew, plan, model, loss_from, report)


def _loss(model: nn.ModuleDict, gallery: Gallery, told: _Told) -> Tensor:
    heads = model["heads"]
    assert isinstance(heads, Heads)
    rows = told.rows.numpy()
    labels = gallery.labels(rows)
    loss, pooled = _image_loss(model, gallery.pictures(rows), labels)
    out = model["text"](told.ids.to(labels.device))
    hidden = out.last_hidden_state
    for head, state in zip(heads.text, (out.pooler_output, hidden[:, -1], hidden.mean(1)), strict=True):
        loss = loss + 0.5 * heads.loss(head(state), labels[::2], heads.sizes)
    contrast = heads.contrast(heads.text_contrast(out.pooler_output), heads.image_contrast(pooled)[::2])
    return loss + 0.2 * contrast


def _pairs(drawings: Drawings, random: np.random.Generator, people: int) -> NDArray[np.int64]:
    """Return `[2 * people]` numbers of drawings: as many different people, then the same in other scenes."""
    first = random.choice(len(drawings) // drawings.scenes, people, replace=False) * drawings.scenes
    first += random.integers(0, drawings.scenes, people)
    return np.concatenate([first, drawings.other_scene(first, random)])


def _image_loss(model: nn.ModuleDict, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of the image tower, and its pooled states `[B, 160]`."""
    heads = model["heads"]
    assert isinstance(heads, Heads)
    known = len(IDENTITY_NAMES)
    seen = model["image"](augment(normalise(pictures)), output_hidden_states=False)
    pooled = pooled_state(model["image"], seen.last_hidden_state)
    loss = 2 * heads.loss(heads.identity(seen.image_embeds), labels[:, :known], heads.sizes[:known])
    loss = loss + 0.5 * heads.loss(heads.scene(pooled), labels[:, known:], heads.sizes[known:])
    a, b = heads.person_contrast(seen.image_embeds).chunk(2)
    return loss + 0.2 * heads.contrast(a, b), pooled


@torch.no_grad()
def _accuracy(model: nn.ModuleDict, tokenizer: CLIPTokenizer, held_out: Drawings, count: int = 200) -> str:
    heads, random = model["heads"], Random(0)
    assert isinstance(heads, Heads)
    model.eval()
    rows = held_out.labels[:count]
    texts = [caption(scene_of(row), random, identity=identity_of(row), keep=1.0) for row in rows]
    with torch.autocast("cpu", torch.bfloat16):
        embeds = model["image"](normalise(held_out.images[:count])).image_embeds
        image = heads.identity(embeds).split(heads.sizes[: len(IDENTITY_NAMES)], dim=-1)
        pooled = model["text"](tokenise(tokenizer, texts)).pooler_output
        text = heads.text[0](pooled).split(heads.sizes, dim=-1)
    model.train()
    return f"image: {_scores(image, rows)}; text: {_scores(text, rows)}"


def _scores(logits: tuple[Tensor, ...], rows: NDArray[np.uint8]) -> str:
    hits = {
        name: (part.argmax(-1).numpy() == rows[:, i]).mean()
        for i, (name, part) in enumerate(zip(ATTRIBUTES, logits, strict=False))
    }
    return ", ".join(f"{name} {share:.0%}" for name, share in hits.items())
