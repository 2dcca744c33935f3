"""The generation parameters that are embedded in a finished image's file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

_MAX_TEXT = 4000
"""Characters of a prompt that are embedded: two of them, escaped, must fit a JPEG segment of 64 KB."""

_SAMPLER_NAMES = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "unipc": "UniPC",
    "lcm": "LCM",
}
"""AUTOMATIC1111's names for them; any other is written as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedParameters:
    """What made an image.

    ``prompt`` and ``negative_prompt`` are the caller's own; ``reference`` is the first reference's digest or empty,
    ``references`` are all of them with their weights; ``sampler`` is the engine's name for it. Of prompts of more than
    4,000 characters the file holds that many, the last one an ellipsis.
    """

    task_id: str
    index: int
    model: str
    weights_hash: str
    prompt: str
    negative_prompt: str
    sampler: str
    steps: int
    guidance_scale: float
    guidance_rescale: float
    ip_adapter_scale: float
    seed: int
    width: int
    height: int
    reference: str = ""
    references: tuple[tuple[str, float], ...] = ()
    regions: tuple[tuple[float, float, float, float] | None, ...] = ()
    adapter: str = ""
    reference_layers: str = ""
    deterministic: bool = False
    guidance_start: float = 0.0
    guidance_end: float = 1.0

    def shortened(self) -> EmbeddedParameters:
        """Return them with prompts that fit a file."""
        return replace(self, prompt=_shorten(self.prompt), negative_prompt=_shorten(self.negative_prompt))

    def infotext(self) -> str:
        """Return them in the form of AUTOMATIC1111's web UI, which most tools read.

        Source: its ``modules/infotext_utils.py``.
        """
        lines = [self.prompt]
        if self.negative_prompt:
            lines.append(f"Negative prompt: {self.negative_prompt}")
        facts = {
            "Steps": self.steps,
            "Sampler": _SAMPLER_NAMES.get(self.sampler, self.sampler),
            "CFG scale": f"{self.guidance_scale:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model hash": self.weights_hash[:10],
            "Model": self.model,
        }
        if self.guidance_rescale:
            facts["CFG rescale"] = f"{self.guidance_rescale:g}"
        if (self.guidance_start, self.guidance_end) != (0, 1):
            facts["CFG interval"] = f"{self.guidance_start:g} to {self.guidance_end:g}"
        if self.reference:
            facts["IP-Adapter scale"] = f"{self.ip_adapter_scale:g}"
            facts["IP-Adapter reference"] = self.reference
        if self.adapter:
            facts["IP-Adapter"] = self.adapter
        if self.reference_layers not in ("", "all"):
            facts["IP-Adapter layers"] = self.reference_layers
        if len(self.references) > 1:
            facts["IP-Adapter references"] = " ".join(
                f"{digest}:{weight:g}" for digest, weight in self.references
            )
        if self.regions:
            facts["IP-Adapter regions"] = " ".join(
                "everywhere" if region is None else ":".join(f"{edge:g}" for edge in region)
                for region in self.regions
            )
        facts["Version"] = "limner"
        lines.append(", ".join(f"{name}: {value}" for name, value in facts.items()))
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return them as one JSON object."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> EmbeddedParameters | None:
        """Read ``to_json`` back; None for anything else."""
        try:
            return msgspec.json.decode(text.encode(), type=cls)
        except (msgspec.MsgspecError, UnicodeError):
            return None


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
