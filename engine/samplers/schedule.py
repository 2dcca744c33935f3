"""The noise schedule that a model was trained with, read from its `scheduler_config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedScheduleError

Float32Array = NDArray[np.float32]
PredictionType = Literal["epsilon", "v_prediction"]
TimestepSpacing = Literal["linspace", "leading", "trailing"]
FinalSigma = Literal["zero", "sigma_min"]

# Keys that change the arithmetic in a way the tables do not cover, with the only value that they may hold.
_FIXED: Mapping[str, object] = {
    "rescale_betas_zero_snr": False,
    "thresholding": False,
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "variance_type": None,
    "sigma_min": None,
    "sigma_max": None,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoiseSchedule:
    """Hold what samplers need to know of a model's forward process.

    Compared and hashed by identity, so it can be part of a cache key.

    Attributes:
        alphas_cumprod: `[T]` float32, read-only: the signal power left at each training timestep.
        betas_are_cosine: diffusers keeps Karras timesteps unrounded for `squaredcos_cap_v2` alone.
        prediction_type: what the UNet predicts.
        timestep_spacing: None where the configuration is silent; each sampler then has its own default.
        steps_offset: added to timesteps under `leading` spacing.
        set_alpha_to_one: whether DDIM's last step ends at a signal power of 1, or at `alphas_cumprod[0]`.
        final_sigma: where Euler, DPM++ and UniPC end.
        original_inference_steps: length of the schedule that an LCM was distilled on.
        timestep_scaling: LCM's boundary-condition scale.
    """

    alphas_cumprod: Float32Array
    betas_are_cosine: bool
    prediction_type: PredictionType
    timestep_spacing: TimestepSpacing | None
    steps_offset: int
    set_alpha_to_one: bool
    final_sigma: FinalSigma
    original_inference_steps: int
    timestep_scaling: float

    @property
    def num_train_timesteps(self) -> int:
        """Return T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    @property
    def sigmas(self) -> Float32Array:
        """Return `[T]` float32: noise over signal, in ascending order of timestep."""
        one = np.float32(1)
        sigmas: Float32Array = np.sqrt((one - self.alphas_cumprod) / self.alphas_cumprod)
        return sigmas

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a diffusers scheduler configuration of any class.

        Keys that diffusers itself filled in (`_use_default_values`) count as absent, as in diffusers'
        `ConfigMixin.extract_init_dict`. Options that belong to a solver (`solver_order`, `use_karras_sigmas`,
        `clip_sample` ...) are not read: the sampler's name decides them, see `registry`.

        Raises:
            UnsupportedScheduleError: a key is missing or holds a value outside the supported ones.
        """
        filled_in = set(config.get("_use_default_values") or ())
        given = {key: value for key, value in config.items() if key not in filled_in}
        for key, only in _FIXED.items():
            if key in given and given[key] != only and given[key] is not None:
                raise UnsupportedScheduleError(key, given[key], repr(only))
        betas = _betas(given)
        # diffusers rounds betas and their cumulative product to float32, which moves the smallest sigma by
        # 1e-5; torch.cumprod on the CPU accumulates in float64 and rounds each element once.
        alphas = (np.float32(1) - betas).astype(np.float64)
        alphas_cumprod = np.cumprod(alphas).astype(np.float32)
        alphas_cumprod.setflags(write=False)
        original_steps = _positive_int(given, "original_inference_steps", 50)
        if original_steps > len(betas):
            raise UnsupportedScheduleError(
                "original_inference_steps", original_steps, f"at most {len(betas)}"
            )
        spacing = given.get("timestep_spacing")
        return cls(
            alphas_cumprod=alphas_cumprod,
            betas_are_cosine=given.get("beta_schedule") == "squaredcos_cap_v2",
            prediction_type=_one_of(given, "prediction_type", ("epsilon", "v_prediction"), "epsilon"),
            timestep_spacing=None
            if spacing is None
            else _one_of(given, "timestep_spacing", ("linspace", "leading", "trailing"), "linspace"),
            steps_offset=_offset(given, len(betas)),
            set_alpha_to_one=bool(given.get("set_alpha_to_one", True)),
            final_sigma=_one_of(given, "final_sigmas_type", ("zero", "sigma_min"), "zero"),
            original_inference_steps=original_steps,
            timestep_scaling=float(given.get("timestep_scaling", 10.0)),
        )


def _betas(given: Mapping[str, Any]) -> Float32Array:
    trained = given.get("trained_betas")
    if trained is not None:
        betas = np.asarray(trained, dtype=np.float32)
        if betas.ndim != 1 or len(betas) < 2 or not (np.all(betas > 0) and np.all(betas < 1)):
            raise UnsupportedScheduleError(
                "trained_betas", trained, "a list of at least two numbers in (0, 1)"
            )
        return betas
    kind = _one_of(given, "beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"), None)
    count = _positive_int(given, "num_train_timesteps", 1000)
    if count < 2:
        raise UnsupportedScheduleError("num_train_timesteps", count, "at least 2")
    if kind == "squaredcos_cap_v2":
        bars = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return np.array([min(1 - bars[i + 1] / bars[i], 0.999) for i in range(count)], dtype=np.float32)
    start, end = (_beta(given, key) for key in ("beta_start", "beta_end"))
    if kind == "linear":
        return _linspace32(start, end, count)
    return _linspace32(start**0.5, end**0.5, count) ** 2


def _linspace32(start: float, end: float, count: int) -> Float32Array:
    """Repeat torch.linspace in float32: from both ends to the middle, with a fused multiply-add."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    index = np.arange(count, dtype=np.float64)
    rising, falling = first + step * index, last - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def _beta(given: Mapping[str, Any], key: str) -> float:
    value = given.get(key)
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise UnsupportedScheduleError(key, value, "a number in (0, 1)")
    return float(value)


def _positive_int(given: Mapping[str, Any], key: str, default: int) -> int:
    value = given.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise UnsupportedScheduleError(key, value, "a positive integer")
    return value


def _offset(given: Mapping[str, Any], count: int) -> int:
    value = given.get("steps_offset", 0)
    if not isinstance(value, int) or not 0 <= value < count // 2:
        raise UnsupportedScheduleError("steps_offset", value, f"an integer in 0..{count // 2 - 1}")
    return value


def _one_of(given: Mapping[str, Any], key: str, values: tuple[str, ...], default: str | None) -> Any:
    value = given.get(key, default)
    if value not in values:
        raise UnsupportedScheduleError(key, value, "one of " + ", ".join(values))
    return value
