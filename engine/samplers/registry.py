"""The samplers by name.

Each equals a diffusers scheduler built by `Scheduler.from_config(config, **overrides)`:

| name | scheduler | overrides |
|---|---|---|
| ddim | `DDIMScheduler` | `clip_sample=False` |
| euler | `EulerDiscreteScheduler` | the sigma options below |
| euler_ancestral | `EulerAncestralDiscreteScheduler` | none |
| dpmpp_2m | `DPMSolverMultistepScheduler` | `algorithm_type="dpmsolver++"`, both sets below |
| dpmpp_2m_karras | `DPMSolverMultistepScheduler` | the same, with `use_karras_sigmas=True` |
| unipc | `UniPCMultistepScheduler` | `solver_type="bh2"`, `disable_corrector=[]`, both sets below |
| lcm | `LCMScheduler` | `clip_sample=False` |

Sigma options: `use_karras_sigmas=False`, `use_exponential_sigmas=False`, `use_beta_sigmas=False`. Solver
options: `solver_order=2`, `lower_order_final=True`; for UniPC also `predict_x0=True`; for DPM++ also
`solver_type="midpoint"`, `euler_at_final=False`, `use_lu_lambdas=False`, `lambda_min_clipped=-inf`. All are
diffusers' defaults, named because a configuration saved from another scheduler may carry others, except
`clip_sample`, whose default clips latents to [-1, 1]: `StableDiffusionPipeline` forces it to False as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .ddim import compile_ddim
from .dpmpp import compile_dpmpp_2m, compile_dpmpp_2m_karras
from .errors import StepsOutOfRangeError, UnknownSamplerError
from .euler import compile_euler, compile_euler_ancestral
from .lcm import compile_lcm
from .schedule import NoiseSchedule
from .table import SamplerLimits, SamplerTable
from .unipc import compile_unipc

MAX_STEPS = 200
"""No sampler here gains from more, and it bounds what a bank of tables may hold."""

_COMPILERS: Mapping[str, Callable[[int, NoiseSchedule], SamplerTable]] = MappingProxyType(
    {
        "ddim": compile_ddim,
        "euler": compile_euler,
        "euler_ancestral": compile_euler_ancestral,
        "dpmpp_2m": compile_dpmpp_2m,
        "dpmpp_2m_karras": compile_dpmpp_2m_karras,
        "unipc": compile_unipc,
        "lcm": compile_lcm,
    }
)


def sampler_names() -> tuple[str, ...]:
    """Return the names that requests may use."""
    return tuple(_COMPILERS)


def sampler_limits(name: str, schedule: NoiseSchedule) -> SamplerLimits:
    """Return how many steps a sampler takes, without compiling it.

    At least 1. `lcm`: at most `original_inference_steps` (50 unless the configuration says otherwise).
    Others: at most `MAX_STEPS`, and few enough that `leading` spacing stays inside the training schedule.

    Raises:
        UnknownSamplerError: no such sampler.
    """
    if name not in _COMPILERS:
        raise UnknownSamplerError(name, sampler_names())
    if name == "lcm":
        return SamplerLimits(min_steps=1, max_steps=min(MAX_STEPS, schedule.original_inference_steps))
    room = schedule.num_train_timesteps // (schedule.steps_offset + 1) - 1
    return SamplerLimits(min_steps=1, max_steps=min(MAX_STEPS, room))


def compile_table(name: str, steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile a sampler to its table; takes about a millisecond, keep the result.

    Raises:
        UnknownSamplerError: no such sampler.
        StepsOutOfRangeError: `steps` is outside `sampler_limits`.
    """
    limits = sampler_limits(name, schedule)
    if not limits.min_steps <= steps <= limits.max_steps:
        raise StepsOutOfRangeError(name, steps, limits.min_steps, limits.max_steps)
    return _COMPILERS[name](steps, schedule)
