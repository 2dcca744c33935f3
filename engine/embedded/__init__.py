"""Find the model in the box: its weights, and reference portraits to try it with. Needs no torch."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def model_directory() -> Path:
    """Return the directory that `StableDiffusionPipeline.from_pretrained` and `load_ip_adapter` take."""
    return _HERE / "weights"


def reference_portraits() -> dict[str, Path]:
    """Return the shipped reference portraits (PNG, 256x256) by first name, in alphabetical order."""
    return {path.stem: path for path in sorted((_HERE / "references").glob("*.png"))}
