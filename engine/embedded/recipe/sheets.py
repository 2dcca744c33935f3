"""Draw contact sheets with diffusers' own pipeline, from seeds 0, 1, 2 ... and nothing picked by hand."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from transformers import CLIPVisionModelWithProjection

from engine.embedded import reference_portraits
from engine.embedded.recipe.export import ADAPTER_FILE

TILE = 128
PROMPTS = (
    "a portrait of a person, smiling, wearing a red sweater, on a blue background",
    "a portrait of a person, laughing, wearing a yellow sweater, at the beach, wearing a straw hat",
    "a portrait of a person, serious, wearing a black sweater, in the city at night, wearing a beanie",
    "close-up portrait of a person, surprised, wearing a purple sweater, on a yellow background",
    "a portrait of a person, smiling, wearing a white sweater, in a forest, warm light",
    "a portrait of a person, sad, wearing a green sweater, on a pink background, dramatic light",
    "a portrait of a person, calm, wearing a blue sweater, in the mountains, cool light, wearing a cap",
    "a portrait of a person, laughing, wearing a red sweater, at sunset, wearing a golden crown",
)
PEOPLE = (
    "a person with pale skin, long red hair, green eyes, round glasses, smiling, on a blue background",
    "a person with dark skin, curly black hair, a beard, laughing, on a yellow background",
    "a person with tan skin, spiky blue hair, square glasses, serious, on a white background",
    "a person with light skin, a pink bob, blue eyes, smiling, at the beach",
)


def load_pipeline(directory: Path) -> StableDiffusionPipeline:
    """Return diffusers' pipeline with the adapter loaded, in float32 and without network access."""
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        directory / "image_encoder", local_files_only=True
    )
    pipe = StableDiffusionPipeline.from_pretrained(
        directory,
        image_encoder=encoder,
        safety_checker=None,
        local_files_only=True,
        dtype=torch.float32,
    )
    pipe.load_ip_adapter(
        str(directory), subfolder="ip_adapter", weight_name=ADAPTER_FILE, image_encoder_folder=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: StableDiffusionPipeline,
    prompts: list[str],
    references: list[Image.Image],
    *,
    scale: float = 1.0,
    guidance: float = 3.0,
    steps: int = 20,
    first_seed: int = 0,
) -> list[Image.Image]:
    """Return one picture for each prompt and its reference, the n-th from seed `first_seed + n`."""
    pipe.set_ip_adapter_scale(scale)
    out = []
    for n, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        generator = torch.Generator().manual_seed(first_seed + n)
        out += pipe(
            prompt,
            ip_adapter_image=reference,
            guidance_scale=guidance,
            num_inference_steps=steps,
            generator=generator,
        ).images
    return out


def grid(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Return rows of pictures under their titles."""
    width = max(len(images) for _, images in rows) * TILE
    sheet = Image.new("RGB", (width, len(rows) * (TILE + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (title, images) in enumerate(rows):
        draw.text((3, y * (TILE + 14) + 1), title, fill="black")
        for x, image in enumerate(images):
            sheet.paste(image.resize((TILE, TILE)), (x * TILE, y * (TILE + 14) + 14))
    return sheet


def draw_progress(weights: Path, out: Path) -> None:
    """Write one small sheet while training goes on: two people in four scenes."""
    pipe = load_pipeline(weights)
    rows = []
    for name, path in list(reference_portraits().items())[::4]:
        portrait = Image.open(path).convert("RGB")
        images = generate(pipe, list(PROMPTS[:4]), [portrait] * 4, steps=12)
        rows.append((name, [portrait, *images]))
    out.parent.mkdir(parents=True, exist_ok=True)
    grid(rows).save(out)


def draw_sheets(weights: Path, out: Path) -> None:
    """Write four sheets: one person in many scenes, many people in one, scales, and text alone."""
    pipe = load_pipeline(weights)
    portraits = {name: Image.open(path).convert("RGB") for name, path in reference_portraits().items()}
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, portrait in list(portraits.items())[:4]:
        images = generate(pipe, list(PROMPTS), [portrait] * len(PROMPTS))
        rows.append((f"{name} (reference, then scenes)", [portrait, *images]))
    grid(rows).save(out / "scenes.png")
    rows = []
    for prompt in (PROMPTS[0], PROMPTS[1]):
        people = list(portraits.values())
        rows += [("references", people), (prompt, generate(pipe, [prompt] * len(people), people))]
    grid(rows).save(out / "people.png")
    rows = []
    for name, portrait in list(portraits.items())[:3]:
        images = [
            generate(pipe, [PROMPTS[0]], [portrait], scale=s)[0] for s in (0.0, 0.25, 0.5, 0.75, 1.0, 1.2)
        ]
        rows.append((f"{name}: reference, then scale 0, 0.25, 0.5, 0.75, 1, 1.2", [portrait, *images]))
    grid(rows).save(out / "scales.png")
    blank = Image.new("RGB", (TILE, TILE))
    rows = [(prompt, generate(pipe, [prompt] * 6, [blank] * 6, scale=0.0)) for prompt in PEOPLE]
    grid(rows).save(out / "text.png")
