"""Run the stages of the recipe; each continues from its checkpoint when there is one."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from engine.embedded import model_directory
from engine.embedded.recipe.data import Drawings, draw
from engine.embedded.recipe.workers import Crew, run_crew

if TYPE_CHECKING:
    from torch import Tensor

TRAIN_PERSONS, TRAIN_SCENES, TRAIN_SEED = 4000, 5, 11
TEST_PERSONS, TEST_SCENES, TEST_SEED = 200, 4, 1_000_003


def _train_set(options: argparse.Namespace) -> Drawings:
    return draw(options.cache / "world/train", persons=TRAIN_PERSONS, scenes=TRAIN_SCENES, seed=TRAIN_SEED)


def _test_set(options: argparse.Namespace) -> Drawings:
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

    _train_set(options)
    _test_set(options)
    draw_references(model_directory().parent / "references")


def vae(options: argparse.Namespace) -> None:
    """Train encoder and decoder."""
    _train_set(options)
    run_crew(partial(_vae_work, options=options), size=options.workers, directory=options.cache / "train")


def _vae_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.vae import train_vae

    train_vae(crew, _train_set(options), _test_set(options), options.cache / "train", minutes=options.minutes)


def clip(options: argparse.Namespace) -> None:
    """Train the text and image towers."""
    from engine.embedded.recipe.tokenizer import train_tokenizer

    _train_set(options)
    train_tokenizer(options.cache / "train/tokenizer")
    run_crew(partial(_clip_work, options=options), size=options.workers, directory=options.cache / "train")


def _clip_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.clip import train_clip
    from engine.embedded.recipe.tokenizer import train_tokenizer

    out = options.cache / "train"
    tokenizer = train_tokenizer(out / "tokenizer")
    train_clip(crew, _train_set(options), _test_set(options), tokenizer, out, minutes=options.minutes)


def unet(options: argparse.Namespace) -> None:
    """Encode the drawings and train UNet and IP-Adapter; the export is refreshed as it goes."""
    _train_set(options)
    run_crew(partial(_unet_work, options=options), size=options.workers, directory=options.cache / "train")


def _unet_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.assemble import collect, load_vae, start_joint
    from engine.embedded.recipe.batches import Batches
    from engine.embedded.recipe.diffusion import DiffusionPlan, train_diffusion
    from engine.embedded.recipe.export import export as write
    from engine.embedded.recipe.latents import encode
    from engine.embedded.recipe.sheets import draw_progress
    from engine.embedded.recipe.tokenizer import train_tokenizer
    from engine.embedded.recipe.unet import build_noise_schedule

    drawings, out = _train_set(options), options.cache / "train"
    vae = load_vae(out, drawings)
    batches = Batches(
        drawings=drawings,
        latents=encode(crew, out, drawings, vae),
        tokenizer=train_tokenizer(out / "tokenizer"),
        signal=build_noise_schedule().alphas_cumprod,
    )

    def publish(weights: "dict[str, Tensor]") -> None:
        write(collect(out, vae, weights), options.weights)
        draw_progress(options.weights, out / "unet_sheet.png")

    train_diffusion(crew, DiffusionPlan(minutes=options.minutes), out, start_joint(out), batches, publish)


def decoder(options: argparse.Namespace) -> None:
    """Polish the VAE's decoder alone: the latents, and so the UNet, stay as they are."""
    run_crew(partial(_decoder_work, options=options), size=options.workers, directory=options.cache / "train")


def _decoder_work(crew: Crew, options: argparse.Namespace) -> None:
    from engine.embedded.recipe.decoder import train_decoder

    train_decoder(
        crew, _train_set(options), _test_set(options), options.cache / "train", minutes=options.minutes
    )


def export(options: argparse.Namespace) -> None:
    """Write the weights that the checkpoints hold."""
    from engine.embedded.recipe.assemble import collect, load_joint, load_vae
    from engine.embedded.recipe.export import export as write

    out = options.cache / "train"
    write(collect(out, load_vae(out, _train_set(options)), load_joint(out)), options.weights)


def sheet(options: argparse.Namespace) -> None:
    """Draw contact sheets with diffusers from the exported weights."""
    from engine.embedded.recipe.sheets import draw_sheets

    draw_sheets(options.weights, options.cache / "sheets")


def measure(options: argparse.Namespace) -> None:
    """Read people and scenes back from generated pictures."""
    from engine.embedded.recipe.measure import measure as run

    run(options.weights, options.cache / "train", _test_set(options), options.cache / "sheets/measured.json")
