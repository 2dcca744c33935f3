"""The machine: what every stage of a request costs on one replica, and where these figures come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from engine.config import ConfigError, EngineConfig
from engine.loop.decoding import DecodePlan, plan_decoding
from engine.scheduling import CostCurve, Policy, Shape, without_noise
from loadtests.simulator.errors import SimulationError


class TickCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds of a UNet call for one latent shape, by bucket."""

    shape: Shape
    seconds: dict[int, float]


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say what a replica costs. All times are in seconds.

    sources: for each figure or group of them, where it comes from; the paper prints it.
    ticks: measured UNet calls. The first shape is the model's default one.
    decode_seconds: a call of the VAE, by images, at the default shape; other sizes cost by their area.
    step_seconds, step_seconds_image: guidance, samplers and the guard, for each tick and each image in it.
    turn_seconds: mail and reports of each turn of the loop.
    prompt_seconds, prompt_seconds_each: a call of the text encoder, and what each prompt in it adds.
    place_seconds: keys and values of a row of an image that takes its first tick.
    encode_seconds: a call of the image encoder, which always takes ``encode_batch`` pictures.
    arrive_seconds, answer_seconds: the server before the engine has a job, and after its last picture.
    upload_seconds: a miss before the engine has its picture: the caller's second round trip, reading and resizing.
    shared_seconds: a look-up in the cache that replicas share.
    contention_seconds: engine time that each request costs besides, because the server's work shares its cores.
    slowdown: factor on everything that the engine computes, for a machine that is slower than when it was measured.
    jitter: standard deviation of the logarithm of a tick's time.
    reference_bytes, prompt_bytes: what an entry takes in its cache.
    """

    name: str
    sources: dict[str, str]
    ticks: tuple[TickCosts, ...]
    decode_seconds: dict[int, float]
    step_seconds: float = 0.0
    step_seconds_image: float = 0.0
    turn_seconds: float = 0.0
    prompt_seconds: float = 0.0
    prompt_seconds_each: float = 0.0
    place_seconds: float = 0.0
    encode_seconds: float = 0.0
    encode_batch: int = 4
    arrive_seconds: float = 0.0
    answer_seconds: float = 0.0
    upload_seconds: float = 0.0
    shared_seconds: float = 0.001
    contention_seconds: float = 0.0
    slowdown: float = 1.0
    jitter: float = 0.0
    reference_bytes: int = 13_327
    prompt_bytes: int = 236_544
    latent_scale: int = 8

    def __post_init__(self) -> None:
        if not self.ticks:
            raise SimulationError("ticks", "at least one shape must have been measured")
        if 1 not in self.decode_seconds:
            raise SimulationError("decode_seconds", "the time of one image is needed")
        for name in ("encode_batch", "reference_bytes", "prompt_bytes", "latent_scale"):
            if getattr(self, name) < 1:
                raise SimulationError(name, f"{getattr(self, name)} is less than 1")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not 0 <= value < 1e6:
                raise SimulationError(name, f"{value} is not a time of 0 to 1e6 seconds, or a factor")

    @property
    def shape(self) -> Shape:
        """Return the default latent shape."""
        return self.ticks[0].shape

    @property
    def buckets(self) -> tuple[int, ...]:
        """Return the batch sizes, ascending."""
        return tuple(sorted(self.ticks[0].seconds))

    def shape_of(self, width: int, height: int) -> Shape:
        """Return the latent shape of a size in pixels."""
        return self.shape[0], height // self.latent_scale, width // self.latent_scale

    def plan(self, config: EngineConfig) -> DecodePlan:
        """Return how the engine would decode after warm-up on this machine."""
        offered = {
            batch: seconds for batch, seconds in self.decode_seconds.items() if batch <= config.decode_batch
        }
        stall = max(self.ticks[0].seconds.values())
        return plan_decoding(offered, stall=stall, patience_ticks=config.decode_patience_ticks)

    def planned_costs(self) -> CostCurve:
        """Return the curve that the scheduler would plan with; each replica's learns for itself.

        Of the default shape alone, as warm-up times no other.
        """
        return CostCurve({self.shape: without_noise(self.ticks[0].seconds)})

    def true_costs(self) -> CostCurve:
        """Return the curve that ticks really follow."""
        return CostCurve({costs.shape: costs.seconds for costs in self.ticks})

    def decode_costs(self) -> CostCurve:
        """Return the seconds of a call of the VAE, with images in the place of buckets."""
        return CostCurve({self.shape: self.decode_seconds})

    def policy(self, config: EngineConfig) -> Policy:
        """Return the policy of the engine's scheduler. Raises SimulationError."""
        plan = self.plan(config)
        try:
            deterministic = config.deterministic_bucket_of(self.buckets)
        except ConfigError as error:
            raise SimulationError("ticks", str(error)) from error
        return Policy(
            deterministic_bucket=deterministic,
            max_waiting=config.max_waiting,
            headroom=config.headroom,
            aging_seconds=config.aging_seconds,
            finish_seconds=self.decode_seconds[plan.batch] / plan.batch,
        )


def presets() -> dict[str, Machine]:
    """Return the machines of `presets.json` by name."""
    text = files("loadtests.simulator").joinpath("presets.json").read_bytes()
    machines = msgspec.json.decode(text, type=tuple[Machine, ...])
    return {machine.name: machine for machine in machines}


def read_machine(name: str) -> Machine:
    """Return a preset, or read a file: a machine as `measure` writes it, or an engine's ``calibration.json``.

    Raises SimulationError.
    """
    known = presets()
    if name in known:
        return known[name]
    path = Path(name)
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except FileNotFoundError:
        raise SimulationError("machine", f"{name} is neither a file nor one of {', '.join(known)}") from None
    except (OSError, ValueError) as error:
        raise SimulationError("machine", f"{name} cannot be read: {error}") from error
    try:
        if "tick_seconds" in data:
            return from_calibration(path.name, data)
        return msgspec.json.decode(raw, type=Machine)
    except (msgspec.ValidationError, TypeError) as error:
        raise SimulationError("machine", f"{name}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calibration:
    """What an engine's ``calibration.json`` says that a simulation can use."""

    shape: Shape
    tick_seconds: dict[int, float]
    decode_seconds: dict[int, float]


def from_calibration(name: str, data: Mapping[str, Any]) -> Machine:
    """Return the machine of an engine's ``calibration.json``: ticks and decodes measured, all else free of cost."""
    read = msgspec.convert(
        {key: data.get(key) for key in ("shape", "tick_seconds", "decode_seconds")},
        _Calibration,
        strict=False,
    )
    return Machine(
        name=name,
        sources={
            "ticks, decode_seconds": f"{name}, written by an engine",
            "everything else": "taken as free",
        },
        ticks=(TickCosts(shape=read.shape, seconds=read.tick_seconds),),
        decode_seconds=read.decode_seconds,
    )
