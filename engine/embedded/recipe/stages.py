"""Run the stages of the recipe; each continues from its checkpoint when there is one."""

import argparse
from functools import partial
from typing import Protocol

import numpy as np

from engine.embedded import model_directory
from engine.embedded.recipe.data import Drawings, draw
from engine.embedded.recipe.workers import Crew, run_crew

TRAIN_SCENES, TRAIN_SEED = 5, 11
TEST_PERSONS, TEST_SCENES, TEST_SEED = 500, 3, 1_000_003
CALIBRATION_PERSONS, CALIBRATION_SEED = 64, 2_000_003


def train_set(options: argparse.Namespace) -> Drawings:
    """Return the drawings to train on."""
    directory = options.cache / f"world/train-{options.persons}"
    return draw(directory, persons=options.persons, scenes=TRAIN_SCENES, seed=TRAIN_SEED)


def test_set(options: argparse.Namespace) -> Drawings:
    """Return the drawings of people whom training never sees."""
    return draw(
        options.cache / "world/held_out",
        persons=TEST_PERSONS,
        scenes=TEST_SCENES,
        seed=TEST_SEED,
        held_out=True,
    )


def world(options: argparse.Namespace) -> None:
    """Draw the training set, the held-out set and the reference portraits."""
    from engine.embedded.recipe.references import draw_references

    train_set(options)
    test_set(options)
    draw_references(model_directory().parent / "references")


def vae(options: argparse.Namespace) -> None:
    """Train encoder and decoder."""
    _run(options, _vae_work)


def clip(options: argparse.Namespace) -> None:
    """Train the text and image towers."""
    from engine.embedded.recipe.tokenizer import train_tokenizer

    train_tokenizer(options.cache / "train/tokenizer")
    _run(options, _clip_work)


def image(options: argparse.Namespace) -> None:
    """Go on with the image tower alone."""
    _run(options, _image_work)


def reader(options: argparse.Namespace) -> None:
    """Train the classifiers that read attributes back from generated pictures."""
    _run(options, _reader_work)


def unet(options: argparse.Namespace) -> None:
    """Encode the drawings and train the UNet on text."""
    _run(options, _unet_work)


def adapter(options: argparse.Namespace) -> None:
    """Train the IP-Adapter beside the frozen UNet."""
    _run(options, _adapter_work)


def export(options: argparse.Namespace) -> None:
    """Write the weights that the checkpoints hold."""
    from engine.embedded.recipe.assemble import collect
    from engine.embedded.recipe.export import export as write

    write(collect(options.cache / "train", train_set(options)), options.weights)


def calibrate(options: argparse.Namespace) -> None:
    """Find the ranges of the weights' activations, on people and scenes that the quality report does not show."""
    from engine.calibration.calibrate import Material
    from engine.calibration.calibrate import calibrate as find
    from engine.embedded.quality.pairs import choose_pairs
    from engine.embedded.recipe.export import write_checksums
    from engine.export.activations import ACTIVATIONS

    drawings = draw(
        options.cache / "world/calibration", persons=CALIBRATION_PERSONS, scenes=2, seed=CALIBRATION_SEED
    )
    pairs = choose_pairs(drawings, CALIBRATION_PERSONS)
    material = Material(
        prompts=pairs.plain,
        references=[np.array(drawings.images[row]) for row in pairs.elsewhere],
        images=CALIBRATION_PERSONS,
    )
    find(options.weights, options.cache / "limner", material).write(options.weights / ACTIVATIONS)
    write_checksums(options.weights)


class _Work(Protocol):
    def __call__(self, crew: Crew, options: argparse.Namespace) -> None: ...


def _run(options: argparse.Namespace, work: _Work) -> None:
    train_set(options)
    test_set(options)
    run_crew(
        partial(work, options=options),
        size=options.workers,
        directory=options.cache / "train",
        device=options.device,
    )


def _vae_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.vae import train_vae

    train_vae(crew, train_set(options), test_set(options), options.cache / "train", minutes=options.minutes)


def _clip_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.clip import train_clip
    from engine.embedded.recipe.tokenizer import train_tokenizer

    out = options.cache / "train"
    tokenizer = train_tokenizer(out / "tokenizer")
    train_clip(crew, train_set(options), test_set(options), tokenizer, out, minutes=options.minutes)


def _image_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.clip import train_image
    from engine.embedded.recipe.tokenizer import train_tokenizer

    out = options.cache / "train"
    tokenizer = train_tokenizer(out / "tokenizer")
    train_image(crew, train_set(options), test_set(options), tokenizer, out, minutes=options.minutes)


def _reader_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.reader import train_reader

    train_reader(
        crew, train_set(options), test_set(options), options.cache / "train", minutes=options.minutes
    )


def _unet_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.assemble import denoiser_data
    from engine.embedded.recipe.diffusion import train_unet
    from engine.embedded.recipe.unet import start_unet

    data = denoiser_data(crew, options.cache / "train", train_set(options))
    train_unet(crew, start_unet(), data, minutes=options.minutes)


def _adapter_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.assemble import denoiser_data, embed_drawings, start_adapter
    from engine.embedded.recipe.diffusion import train_adapter

    out, drawings = options.cache / "train", train_set(options)
    data, embeds = denoiser_data(crew, out, drawings), embed_drawings(crew, out, drawings)
    train_adapter(crew, start_adapter(out), data, embeds, minutes=options.minutes)
