"""Train the reader that the quality report reads pictures with (`engine.embedded.quality.reader`)."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.embedded.quality.accuracy import by_attribute, mean_of
from engine.embedded.quality.reader import PICTURE, Attributes, Reader, prepare, reader_path, save_reader
from engine.embedded.quality.settings import BAR
from engine.embedded.recipe.data import Drawings, Gallery
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.training import Plan, Start, train
from engine.embedded.recipe.workers import Crew

BATCH = 48
SMOOTHING = 0.05


def train_reader(
    crew: Crew | None,
    drawings: Drawings,
    held_out: Drawings,
    directory: Path,
    *,
    minutes: float,
    seed: int = 5,
    attributes: Attributes | None = None,
    export: Path | None = None,
) -> None:
    """Train for a wall-clock budget; each checkpoint writes the weight average for the quality report.

    It goes to `export`, by default where the report looks for it (`reader_path`). Labels are `attributes`'
    (the world's when None).
    """
    torch.manual_seed(seed)
    reader = Reader(attributes)
    plan = Plan(
        name="reader",
        directory=directory,
        minutes=minutes,
        matrix_rate=0.02,
        vector_rate=2e-3,
        checkpoint_minutes=2.0,
    )
    crew = crew or Crew(rank=0, size=1)
    train(
        crew,
        plan,
        reader,
        partial(_loss_from, crew, reader, Gallery(drawings, crew.device), seed),
        partial(_report, Reader(attributes), held_out, export or reader_path()),
    )


def _loss_from(crew: Crew, reader: Reader, gallery: Gallery, seed: int, start: Start) -> "partial[Tensor]":
    return partial(_loss, crew, reader, gallery, np.random.default_rng([seed, start.step, start.rank]))


def _loss(crew: Crew, reader: Reader, gallery: Gallery, random: np.random.Generator) -> Tensor:
    rows = gallery.some(random, crew.rows(BATCH))
    labels = gallery.labels(rows)
    reader.train()
    pixels = augment(prepare(gallery.pictures(rows)))
    with crew.arithmetic():
        logits = reader(pixels)
    losses = [
        F.cross_entropy(part.float(), label, label_smoothing=SMOOTHING)
        for part, label in zip(logits, labels.T, strict=True)
    ]
    return torch.stack(losses).mean()


def _report(
    average: Reader, held_out: Drawings, export: Path, weights: dict[str, Tensor], progress: Progress
) -> None:
    average.load_state_dict(weights)
    save_reader(average, export)
    print(f"\nreader step {progress.step + 1}: {accuracy(average, held_out)}", flush=True)


def accuracy(reader: Reader, drawings: Drawings, count: int = 800) -> str:
    """Return the accuracy on drawings as one line: the mean over the bar's attributes, then each attribute."""
    read = reader.read(drawings.images[:count])
    scores = by_attribute(read, drawings.labels[:count], tuple(reader.attributes))
    bar = [name for name in BAR if name in scores]
    each = ", ".join(f"{name} {score:.1%}" for name, score in scores.items())
    return f"bar {mean_of(scores, bar):.2%}; {each}"


def augment(pixels: Tensor) -> Tensor:
    """Move, soften, tint, grain and blot pictures as a generator's faults would, each in its own way.

    A shift of up to 4 pixels and a zoom of up to 5 %; then blur or halved resolution; a gain and an offset
    well below the distance between two tones of skin; noise of one, four and eight pixels; a grey blot in
    one picture of four.
    """
    return _blot(_grain(_tint(_soften(_move(pixels)))))


def _move(pixels: Tensor) -> Tensor:
    batch, device = len(pixels), pixels.device
    zoom = 1 + 0.05 * (2 * torch.rand(batch, device=device) - 1)
    shift = (2 * 4 / PICTURE) * (2 * torch.rand(batch, 2, device=device) - 1)
    zero = torch.zeros(batch, device=device)
    rows = [torch.stack([zoom, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _soften(pixels: Tensor) -> Tensor:
    """Leave a quarter as it is, halve the resolution of a quarter and blur the rest, sigma up to 1.2."""
    order = torch.randperm(len(pixels), device=pixels.device)
    blurred, halved = order[: len(order) // 2], order[len(order) // 2 : 3 * len(order) // 4]
    out = pixels.clone()
    half = F.interpolate(pixels[halved], scale_factor=0.5, mode="bilinear", antialias=True)
    out[halved] = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
    for rows in blurred.tensor_split(4):
        out[rows] = _blur(pixels[rows], 0.2 + 1.0 * float(torch.rand(())))
    return out


def _blur(pixels: Tensor, sigma: float) -> Tensor:
    at = torch.arange(-3, 4, dtype=torch.float32, device=pixels.device)
    weights = torch.exp(-at.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    channels = pixels.shape[1]
    across = F.conv2d(pixels, weights.expand(channels, 1, 1, 7), padding=(0, 3), groups=channels)
    out = F.conv2d(across, weights[:, None].expand(channels, 1, 7, 1), padding=(3, 0), groups=channels)
    edge = 3
    kept = pixels.clone()
    kept[..., edge:-edge, edge:-edge] = out[..., edge:-edge, edge:-edge]
    return kept


def _tint(pixels: Tensor) -> Tensor:
    batch, device = len(pixels), pixels.device
    gain = 1 + 0.05 * (2 * torch.rand(batch, 3, 1, 1, device=device) - 1)
    return pixels * gain + 0.06 * (2 * torch.rand(batch, 3, 1, 1, device=device) - 1)


def _grain(pixels: Tensor) -> Tensor:
    batch, device = len(pixels), pixels.device
    out = pixels + 0.15 * torch.rand(batch, 1, 1, 1, device=device).square() * torch.randn_like(pixels)
    for cell, most in ((4, 0.18), (8, 0.15)):
        coarse = torch.randn(batch, 3, PICTURE // cell, PICTURE // cell, device=device)
        noise = F.interpolate(coarse, scale_factor=cell, mode="bilinear", align_corners=False)
        out = out + most * torch.rand(batch, 1, 1, 1, device=device).square() * noise
    return out


def _blot(pixels: Tensor) -> Tensor:
    for row in torch.randperm(len(pixels))[: len(pixels) // 4].tolist():
        height, width = torch.randint(6, 17, (2,)).tolist()
        top, left = (int(torch.randint(0, PICTURE - side, ())) for side in (height, width))
        pixels[row, :, top : top + height, left : left + width] = torch.randn(3, 1, 1, device=pixels.device)
    return pixels
