"""Train the text and image towers: contrastively, and with heads that read the drawn attributes back."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTokenizer

from engine.embedded.recipe.data import ATTRIBUTES, IDENTITY_NAMES, Drawings, identity_of, scene_of
from engine.embedded.recipe.ema import Ema, load_checkpoint, save_checkpoint
from engine.embedded.recipe.heads import Heads, pooled_state
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.towers import (
    augment,
    build_image_encoder,
    build_text_encoder,
    normalise,
    tokenise,
)
from engine.embedded.recipe.workers import Crew
from engine.embedded.world import caption

PEAK_RATE = 1.6e-3
PEOPLE_A_BATCH = 32


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
    model = nn.ModuleDict(
        {"text": build_text_encoder(tokenizer), "image": build_image_encoder(), "heads": Heads()}
    )
    path, ema = directory / "clip.pt", Ema(model, 0.995)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    progress = Progress(name="clip", minutes=minutes, directory=directory)
    if state := load_checkpoint(path):
        model.load_state_dict(state["model"])
        ema.load(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        progress.step, progress.spent_seconds = state["step"], state["seconds"]
    random = np.random.default_rng([seed, progress.step, crew.rank])
    words = Random(1000 * (progress.step + 1) + crew.rank)
    torch.manual_seed(1000 * (progress.step + 1) + crew.rank)
    people = PEOPLE_A_BATCH // crew.size
    persons = len(drawings) // drawings.scenes
    for step in progress.steps(quiet=not crew.leads):
        first = random.choice(persons, people, replace=False) * drawings.scenes
        first += random.integers(0, drawings.scenes, people)
        index = np.concatenate([first, drawings.other_scene(first, random)])
        with torch.autocast("cpu", torch.bfloat16):
            loss = _loss(model, drawings, tokenizer, index, words)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        progress.share = crew.exchange(model, progress.clock_share())
        for group in optimiser.param_groups:
            group["lr"] = progress.rate(PEAK_RATE, warmup_steps=60)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if not crew.leads:
            continue
        ema.update(model)
        progress.record(float(loss.detach()))
        if step % 100 == 99:
            print(f"\nclip step {step + 1}: {_accuracy(model, tokenizer, held_out)}", flush=True)
            save_checkpoint(path, _state(model, ema, optimiser, progress))
        if progress.share >= 1.0:
            save_checkpoint(path, _state(model, ema, optimiser, progress))
    if not crew.leads:
        return
    ema.copy_to(model)
    print(f"\nclip averaged, step {progress.step}: {_accuracy(model, tokenizer, held_out)}", flush=True)


def _state(
    model: nn.Module, ema: Ema, optimiser: torch.optim.Optimizer, progress: Progress
) -> dict[str, object]:
    state = {"model": model.state_dict(), "ema": ema.state(), "optimiser": optimiser.state_dict()}
    return {**state, "step": progress.step + 1, "seconds": progress.elapsed()}


def _loss(
    model: nn.ModuleDict,
    drawings: Drawings,
    tokenizer: CLIPTokenizer,
    index: NDArray[np.int64],
    words: Random,
) -> Tensor:
    heads = model["heads"]
    assert isinstance(heads, Heads)
    known = len(IDENTITY_NAMES)
    labels = torch.from_numpy(drawings.labels[index].astype(np.int64))
    seen = model["image"](augment(normalise(drawings.images[index])), output_hidden_states=False)
    pooled = pooled_state(model["image"], seen.last_hidden_state)
    embed = seen.image_embeds
    loss = 2 * heads.loss(heads.identity(embed), labels[:, :known], heads.sizes[:known])
    loss = loss + 0.5 * heads.loss(heads.scene(pooled), labels[:, known:], heads.sizes[known:])
    a, b = heads.person_contrast(embed).chunk(2)
    loss = loss + 0.2 * heads.contrast(a, b)
    some = index[::2]
    texts = []
    for row in drawings.labels[some]:
        who = identity_of(row) if words.random() < 0.6 else None
        texts.append(caption(scene_of(row), words, identity=who))
    ids = tokenise(tokenizer, texts)
    out = model["text"](ids)
    hidden = out.last_hidden_state
    for head, state in zip(heads.text, (out.pooler_output, hidden[:, -1], hidden.mean(1)), strict=True):
        loss = loss + 0.5 * heads.loss(head(state), labels[::2], heads.sizes)
    contrast = heads.contrast(heads.text_contrast(out.pooler_output), heads.image_contrast(pooled)[::2])
    return loss + 0.2 * contrast


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
