"""What the engine tells the server once it takes jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from engine.backends.base import MAX_REFERENCES, ModelFacts
from engine.models.layer_presets import known_presets
from engine.models.preprocess import ReferencePreprocessing
from engine.protocol.messages import AdapterInfo, ModelInfo, SamplerInfo
from engine.samplers import NoiseSchedule, sampler_limits, sampler_names

SAMPLER_OF = {
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "UniPCMultistepScheduler": "unipc",
    "LCMScheduler": "lcm",
}
"""The scheduler class that a model was saved with names its default sampler."""

FALLBACK_SAMPLER = "dpmpp_2m"
"""For PNDM and others that have no table; good from about ten steps on."""

STEPS, GUIDANCE_SCALE = 20, 5.0
FEW_STEPS, UNGUIDED = 4, 1.0
EMBEDDED_GUIDANCE_SCALE = 8.5
"""The default of diffusers' ``LatentConsistencyModelPipeline``."""


def model_info(facts: ModelFacts) -> ModelInfo:
    """Describe the model to the server."""
    sampler = default_sampler(facts)
    steps, guidance_scale = (FEW_STEPS, UNGUIDED) if distilled(facts) else (STEPS, GUIDANCE_SCALE)
    if facts.guidance_embedded:
        guidance_scale = EMBEDDED_GUIDANCE_SCALE
    return ModelInfo(
        name=facts.name,
        family=facts.family,
        weights_hash=facts.weights_hash,
        adapters=tuple(
            AdapterInfo(
                name=adapter.name,
                kind=adapter.kind,
                tokens=adapter.tokens,
                weights_hash=adapter.weights_hash,
            )
            for adapter in facts.adapters
        ),
        reference_layers=known_presets(facts.family, facts.layer_names),
        max_references=MAX_REFERENCES,
        reference_regions=facts.regions and bool(facts.adapters),
        latent_channels=facts.latent_channels,
        latent_scale=facts.latent_scale,
        default_height=facts.default_height,
        default_width=facts.default_width,
        size_multiple=facts.size_multiple,
        min_size=facts.min_size,
        max_size=facts.max_size,
        prompt_tokens=facts.prompt_tokens,
        reference_size=facts.reference_size,
        token_width=facts.token_width,
        preprocessing=facts.preprocessing,
        preprocessor=asdict(ReferencePreprocessing.parse(facts.preprocessing)) if facts.adapters else {},
        default_sampler=sampler,
        default_steps=facts.default_steps or steps,
        default_guidance_scale=facts.default_guidance_scale or guidance_scale,
    )


def distilled(facts: ModelFacts) -> bool:
    """Guess from what a model was saved with whether it was distilled to few steps; ``limner.json`` overrules it.

    LCM's scheduler says so. Turbo and Lightning models carry an Euler scheduler whose timesteps trail, which models
    that predict noise have no other use for.
    """
    config = facts.scheduler_config
    if facts.guidance_embedded or config.get("_class_name") == "LCMScheduler":
        return True
    euler = config.get("_class_name") in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
    return euler and config.get("timestep_spacing") == "trailing" and facts.prediction_type == "epsilon"


def default_sampler(facts: ModelFacts) -> str:
    """Return the sampler that the model was saved with, or the nearest one."""
    config = facts.scheduler_config
    if config.get("_class_name") == "DPMSolverMultistepScheduler" and config.get("use_karras_sigmas"):
        return "dpmpp_2m_karras"
    return SAMPLER_OF.get(str(config.get("_class_name")), FALLBACK_SAMPLER)


def sampler_infos(schedule: NoiseSchedule) -> tuple[SamplerInfo, ...]:
    """Describe the samplers to the server."""
    infos: Sequence[SamplerInfo] = [
        SamplerInfo(name=name, min_steps=limits.min_steps, max_steps=limits.max_steps)
        for name in sampler_names()
        for limits in [sampler_limits(name, schedule)]
    ]
    return tuple(infos)
