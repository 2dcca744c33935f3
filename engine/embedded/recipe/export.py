"""Write the model in diffusers' layout, whole or not at all."""

import copy
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from engine.embedded.quality.settings import MAIN
from engine.embedded.recipe.towers import IMAGE_SIZE, PIXEL_MEAN, PIXEL_STD
from engine.embedded.recipe.unet import build_noise_schedule
from engine.files.digest import sha256_of

ADAPTER_FILE = "ip-adapter_limner.safetensors"
CHECKSUMS = "SHA256SUMS"
KEPT = ("MODEL_CARD.md",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Hold every trained component of the model."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    image_encoder: CLIPVisionModelWithProjection
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    adapter_weights: dict[str, Tensor]


def export(parts: Parts, directory: Path) -> None:
    """Write all weights in float16, their checksums, and swap the directory into place.

    Files named in `KEPT` are carried over from what was there. Loads offline with
    `StableDiffusionPipeline.from_pretrained` and `load_ip_adapter`.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".weights-", dir=directory.parent))
    partial.chmod(0o755)
    _write(parts, partial)
    for name in KEPT:
        if (directory / name).exists():
            shutil.copy2(directory / name, partial / name)
    write_checksums(partial)
    for path in partial.rglob("*"):
        # safetensors writes files that only their owner may read.
        path.chmod(0o755 if path.is_dir() else 0o644)
    if directory.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=directory.parent))
        directory.rename(old / "weights")
        partial.rename(directory)
        shutil.rmtree(old)
    else:
        partial.rename(directory)


def write_checksums(directory: Path) -> None:
    """Write `sha256sum` lines for every file below a directory but the model card and the sums themselves."""
    names = sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
    lines = (f"{sha256_of(directory / name)}  {name}\n" for name in names if name not in (*KEPT, CHECKSUMS))
    (directory / CHECKSUMS).write_text("".join(lines))


def _write(parts: Parts, directory: Path) -> None:
    copy.deepcopy(parts.text_encoder).half().save_pretrained(directory / "text_encoder")
    copy.deepcopy(parts.image_encoder).half().save_pretrained(directory / "image_encoder")
    copy.deepcopy(parts.vae).half().save_pretrained(directory / "vae")
    copy.deepcopy(parts.unet).half().save_pretrained(directory / "unet")
    parts.tokenizer.save_pretrained(directory / "tokenizer")
    build_noise_schedule().save_pretrained(directory / "scheduler")
    adapter = {name: value.half().contiguous() for name, value in parts.adapter_weights.items()}
    (directory / "ip_adapter").mkdir()
    save_file(adapter, directory / "ip_adapter" / ADAPTER_FILE)
    _write_json(directory / "feature_extractor" / "preprocessor_config.json", _feature_extractor())
    _write_json(directory / "model_index.json", _model_index())
    _write_json(
        directory / "limner.json",
        {"default_guidance_scale": MAIN.guidance_scale, "default_num_inference_steps": MAIN.steps},
    )


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _feature_extractor() -> dict[str, object]:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }


def _model_index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
