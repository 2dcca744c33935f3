"""Samplers as coefficient tables (DESIGN section 3): compile once, advance all rows of a tick at once.

Life of an image: `CoefficientBank.table` gives its table, `NoiseSource` its first latents, `initial_state`
its state. A tick gathers each row's coefficients, feeds the UNet `model_input`, guides with `guide`, draws
noise for the rows whose table says so, and calls `advance`.
"""

from .bank import BankedTable, CoefficientBank, StepCoefficients
from .errors import (
    SamplerError,
    SeedOutOfRangeError,
    StepsOutOfRangeError,
    UnknownSamplerError,
    UnsupportedScheduleError,
)
from .guidance import combine, guide, rescaled
from .noise import NoiseSource, image_seed
from .registry import MAX_STEPS, compile_table, sampler_limits, sampler_names
from .schedule import NoiseSchedule
from .table import INPUT_PLANES, STATE_PLANES, SamplerLimits, SamplerTable
from .update import advance, estimate_x0, initial_state, model_input

__all__ = [
    "INPUT_PLANES",
    "MAX_STEPS",
    "STATE_PLANES",
    "BankedTable",
    "CoefficientBank",
    "NoiseSchedule",
    "NoiseSource",
    "SamplerError",
    "SamplerLimits",
    "SamplerTable",
    "SeedOutOfRangeError",
    "StepCoefficients",
    "StepsOutOfRangeError",
    "UnknownSamplerError",
    "UnsupportedScheduleError",
    "advance",
    "combine",
    "compile_table",
    "estimate_x0",
    "guide",
    "image_seed",
    "initial_state",
    "model_input",
    "rescaled",
    "sampler_limits",
    "sampler_names",
]
