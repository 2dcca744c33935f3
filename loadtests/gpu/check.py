"""Equivalence on the device: our GPU backends against diffusers eager on the same card.

``make gpu-check`` or ``python -m loadtests.gpu.check --budget-seconds 200 --output check.json``. Installs nothing; what
is missing is named and the rest runs. Every line begins with PASS, FAIL, INFO, SKIPPED or LACKS; the last table repeats
them all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.backends.base import MAX_REFERENCES, Backend, PlacedReference, RowConditioning
from engine.backends.device.backend import BatchInputs, DeviceBackend
from engine.loop.logs import configure_logging
from loadtests.gpu.driver import LoopDriver, Pictures, largest_error, picture
from loadtests.gpu.exported import exported, what_exports_lack
from loadtests.gpu.report import Report, environment

F32_TOLERANCE = 2
"""Of 255, on any channel of any pixel, against diffusers in float32."""

ALONE_TOLERANCE = 1
"""Of 255, in float32, between a request in a mixed batch and the same request by itself."""

HALF_SLACK = 1.5
"""In half types our mean error against diffusers in float32 may be this many times diffusers' own, plus 0.25 of 255."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
RTX_TARGETS = ("", "8.0", "8.6", "8.9", "12.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request; its initial latents are drawn in float32 for both sides."""

    sampler: str
    steps: int
    guidance: float = 5.0
    scale: float | None = 1.0
    """None for a request without a reference."""
    references: int = 1
    seeds: tuple[int, ...] = (11,)
    prompt: str = "a portrait of a man with a red hat"

    def __str__(self) -> str:
        drawn = f"{self.sampler}-{self.steps}st-g{self.guidance:g}-s{self.scale}-x{len(self.seeds)}"
        return drawn if self.references == 1 else f"{drawn}-r{self.references}"


CASES = (
    Case(sampler="ddim", steps=10),
    Case(sampler="dpmpp_2m", steps=8, guidance=3.0, seeds=(1, 2, 3)),
    Case(sampler="ddim", steps=6, guidance=1.0, scale=0.5),
    Case(sampler="unipc", steps=7, scale=None, seeds=(4, 5)),
    Case(sampler="ddim", steps=9, scale=0.8, references=3, seeds=(6,)),
)


def ours(
    backend: Backend, cases: tuple[Case, ...], *, together: bool, deterministic: bool = False
) -> dict[str, Pictures]:
    """Draw cases through the engine's loop, all at once or one after the other."""
    driver = LoopDriver(backend)
    pictures = [picture(number) for number in range(MAX_REFERENCES)]
    tokens = driver.encode(*pictures) if backend.facts.adapters else None
    drawn: dict[str, Pictures] = {}
    for case in cases:
        driver.submit(
            None if case.scale is None or tokens is None else tokens[: case.references],
            job_id=str(case),
            prompt=case.prompt,
            sampler=case.sampler,
            steps=case.steps,
            guidance_scale=case.guidance,
            ip_adapter_scale=1.0 if case.scale is None else case.scale,
            seeds=case.seeds,
            deterministic=deterministic,
        )
        if not together:
            drawn |= driver.finish()
    if together:
        drawn = driver.finish()
    return drawn


def theirs(root: Path, adapter: str | None, case: Case, dtype: torch.dtype, device: torch.device) -> Pictures:
    """Draw a case with diffusers' pipeline, eager, on the same device."""
    from engine.samplers import NoiseSource
    from tests.samplers.oracle import ORACLES
    from tests.tinymodels import open_pipeline

    key = (root, adapter if case.scale is not None else None, dtype)
    if key not in _PIPELINES:
        _PIPELINES[key] = open_pipeline(root, adapter=key[1], dtype=dtype).to(device)
    pipeline = _PIPELINES[key]
    scheduler, overrides = ORACLES[case.sampler]
    config = open_config(root)
    pipeline.scheduler = scheduler.from_config(config, **overrides)
    referenced: dict[str, Any] = {}
    if case.scale is not None and adapter is not None:
        pipeline.set_ip_adapter_scale(case.scale)
        # One adapter's list of pictures: their tokens stand under one softmax.
        referenced["ip_adapter_image"] = [[picture(number) for number in range(case.references)]]
    cells = pipeline.unet.config.sample_size
    shape = (pipeline.unet.config.in_channels, cells, cells)
    latents = torch.stack([NoiseSource(seed, shape).draw() for seed in case.seeds])
    images = pipeline(
        case.prompt,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        num_images_per_prompt=len(case.seeds),
        latents=latents.to(device, dtype),
        output_type="pil",
        **referenced,
    ).images
    return [np.asarray(image) for image in images]


_PIPELINES: dict[Any, Any] = {}


def open_config(root: Path) -> dict[str, Any]:
    """Return the model's scheduler configuration."""
    from engine.models.layout import ModelLayout

    return ModelLayout.open(root).config("scheduler", "scheduler_config.json")


class Check:
    """All checks of one run."""

    def __init__(self, report: Report, device: torch.device, folder: Path) -> None:
        self.report = report
        self.device = device
        self.folder = folder
        self.reference: dict[tuple[str, str], Pictures] = {}

    def torch_backend(
        self, root: Path, adapter: str | None, dtype: str, *, graphs: bool = True
    ) -> DeviceBackend:
        """Return our torch backend on the device; on a CPU, where the script itself is tried, without graphs."""
        from engine.backends.device.torch_programs import TorchDeviceSettings, torch_device_backend
        from engine.models.model import load_model

        model = load_model(root, adapter=adapter, dtype=DTYPES[dtype])
        settings = TorchDeviceSettings(buckets=(1, 2, 4, 8), capacity=32, graphs=graphs)
        if self.device.type == "cuda":
            return torch_device_backend(model, self.device, settings)
        from engine.backends.device.torch_programs import TorchPrograms
        from tests.backends.host_stream import HostStream

        programs = TorchPrograms(model.unet, HostStream(), settings)
        return DeviceBackend(model, programs, device=self.device, capacity=32)

    def against_diffusers(
        self, label: str, root: Path, adapter: str | None, dtype: str, backend: Backend
    ) -> None:
        """Compare pictures with diffusers, alone and in a mixed batch."""
        together = ours(backend, CASES, together=True)
        alone = ours(backend, CASES, together=False)
        worst, mean, their_mean, their_worst = 0, 0.0, 0.0, 0
        for case in CASES:
            key = (str(root) + str(adapter), str(case))
            if key not in self.reference:
                self.reference[key] = theirs(root, adapter, case, torch.float32, self.device)
            reference = self.reference[key]
            error = largest_error(together[str(case)], reference)
            worst, mean = max(worst, error[0]), max(mean, error[1])
            if dtype != "float32":
                own = largest_error(theirs(root, adapter, case, DTYPES[dtype], self.device), reference)
                their_worst, their_mean = max(their_worst, own[0]), max(their_mean, own[1])
        if dtype == "float32":
            self.report.check(
                f"{label} = diffusers", worst <= F32_TOLERANCE, f"max {worst}/255, mean {mean:.4f}"
            )
        else:
            self.report.check(
                f"{label} as near to f32 as diffusers in {dtype}",
                mean <= HALF_SLACK * their_mean + 0.25,
                f"max {worst}/255, mean {mean:.3f}; diffusers' own max {their_worst}/255, mean {their_mean:.3f}",
            )
        gap = max(largest_error(together[key], alone[key])[0] for key in together)
        limit = ALONE_TOLERANCE if dtype == "float32" else 255
        verdict = f"max {gap}/255" + ("" if dtype == "float32" else " (no limit in half types)")
        self.report.check(f"{label} alone = in a batch", gap <= limit, verdict)
        fixed = ours(backend, CASES, together=True, deterministic=True)
        repeat = ours(backend, CASES, together=False, deterministic=True)
        gap = max(largest_error(fixed[key], repeat[key])[0] for key in fixed)
        self.report.check(f"{label} deterministic alone = in a batch, to the bit", gap == 0, f"max {gap}/255")

    def rows(self, label: str, backend: Backend) -> None:
        """Say how far one row's prediction moves with bucket, place and neighbours."""
        facts = backend.facts
        scale = facts.latent_scale
        shape = (facts.latent_channels, facts.default_height // scale, facts.default_width // scale)
        generator = torch.Generator().manual_seed(3)
        prompts = backend.encode_prompts(["a man", "a woman with a hat", "", "a portrait"])
        rows = []
        for n in range(8):
            references: tuple[PlacedReference, ...] = ()
            if facts.adapters:
                adapter = facts.adapters[n // 2 % len(facts.adapters)]
                size = ((0, 1, 1, 3, 0, 1, 2, 4)[n], adapter.tokens, facts.token_width)
                references = tuple(
                    PlacedReference(adapter=adapter.name, tokens=tokens, scales=(1.0,) * facts.layers)
                    for tokens in torch.randn(size, generator=generator)
                )
            rows.append(RowConditioning(prompt=prompts[n % 4], references=references))
        slots = [backend.place(row) for row in rows]
        sample = torch.randn(8, *shape, generator=generator).to(self.device)
        steps = torch.linspace(1, 999, 8, device=self.device)
        alone = torch.cat(
            [backend.predict_noise([slots[n]], sample[n : n + 1], steps[n : n + 1], 1) for n in range(8)]
        )
        across, within = 0.0, 0.0
        for bucket in backend.buckets(shape):
            chosen = list(range(8))[:bucket]
            batch = backend.predict_noise([slots[n] for n in chosen], sample[chosen], steps[chosen], bucket)
            across = max(across, relative(batch, alone[chosen]))
            single = torch.cat(
                [
                    backend.predict_noise([slots[n]], sample[n : n + 1], steps[n : n + 1], bucket)
                    for n in chosen
                ]
            )
            within = max(within, float((batch - single).abs().max()))
        for slot in slots:
            backend.release(slot)
        self.report.check(f"{label} buckets agree", across < 2e-2, f"relative {across:.1e}")
        self.report.check(
            f"{label} a row is independent of place and neighbours within a bucket",
            within == 0,
            f"max difference {within:.1e}",
        )

    def graph(self, root: Path, adapter: str | None) -> None:
        """Hold the CUDA graph against the same module without one, to the bit."""
        outputs: list[torch.Tensor] = []
        for graphs in (True, False):
            backend = self.torch_backend(root, adapter, "float16", graphs=graphs)
            facts = backend.facts
            side = facts.default_height // facts.latent_scale
            (prompt,) = backend.encode_prompts(["a man"])
            slot = backend.place(RowConditioning(prompt=prompt))
            generator = torch.Generator().manual_seed(5)
            sample = torch.randn(1, facts.latent_channels, side, side, generator=generator).to(self.device)
            step = torch.full((1,), 300.0, device=self.device)
            outputs += [backend.predict_noise([slot], sample, step, 1) for _ in range(3)]
            if graphs:
                calls = backend.calls()
                reasons = "; ".join(call.reason or "captured" for call in calls)
                self.report.check("torch captures CUDA graphs", all(call.captured for call in calls), reasons)
        same = all(torch.equal(outputs[0], other) for other in outputs[1:])
        self.report.check("torch graph = torch without, to the bit", same, f"{len(outputs)} runs")

    def tensorrt(self, name: str, root: Path, adapter: str | None, label: str, dtype: str) -> None:
        """Build on the device into a cache, run, compare; then start again from the cache."""
        from engine.backends.device.stream import CudaStream
        from engine.backends.tensorrt.backend import TensorRTSettings, assemble
        from engine.backends.tensorrt.cache import EngineCache
        from engine.backends.tensorrt.driver import find_gpu
        from engine.backends.tensorrt.graph import unet_graph
        from engine.backends.tensorrt.package import load_package
        from engine.models.model import load_model

        package, gpu = load_package(name), find_gpu()
        settings = TensorRTSettings(buckets=(1, 2, 4, 8), capacity=32)
        graph = unet_graph(exported(root, self.folder, adapter, dtype, self.report.say))
        cache = EngineCache(self.folder / "cache" / label)

        def start() -> DeviceBackend:
            model = load_model(root, adapter=adapter, dtype=DTYPES[dtype])
            began = time.monotonic()
            backend = assemble(
                package,
                gpu,
                model,
                graph,
                cache,
                settings,
                device=self.device,
                stream=CudaStream(self.device),
            )
            self.report.row(
                f"INFO {name} {label} {dtype}: engine there after {time.monotonic() - began:.1f} s"
            )
            return backend

        backend = start()
        self.rows(f"{name} {label} {dtype}", backend)
        self.against_diffusers(f"{name} {label} {dtype}", root, adapter, dtype, backend)
        for call in backend.calls():
            self.report.row(f"INFO {call.name}: graph {call.captured}, {call.reason}")
        before = sorted(self.folder.rglob("*.plan"))
        self.rows(f"{name} {label} {dtype} from the cache", start())
        self.report.check(
            f"{name} {label} {dtype}: a second start builds nothing",
            before == sorted(self.folder.rglob("*.plan")),
            f"{len(before)} plans",
        )


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the norm of the difference over the norm of what is wanted."""
    return float((found - wanted).norm() / wanted.norm())


def probe(package_name: str, target: str, root: Path, export: Path) -> str:
    """Build a tiny engine for a target, load it and hold its output against torch; run in a process of its own.

    ``export`` is the export of the model ``root`` in float16.
    """
    from engine.backends.device.stream import CudaStream
    from engine.backends.tensorrt.backend import TensorRTSettings
    from engine.backends.tensorrt.builder import BuildSettings, build_engine
    from engine.backends.tensorrt.driver import find_gpu
    from engine.backends.tensorrt.graph import unet_graph
    from engine.backends.tensorrt.package import load_package
    from engine.backends.tensorrt.runner import TensorRTPrograms, create_runtime, load_engine
    from engine.export.directory import ExportDirectory
    from engine.models.model import load_model

    package, gpu, device = load_package(package_name), find_gpu(), torch.device("cuda", 0)
    opened = ExportDirectory.open(export)
    facts = opened.manifest.facts
    profiles = TensorRTSettings(buckets=(2,)).profiles(facts)
    settings = BuildSettings(targets=(target,) if target else ())
    built = build_engine(package, unet_graph(opened).path, profiles, settings)
    print(f"built in {built.seconds:.1f} s, {memoryview(built.plan).nbytes} bytes", flush=True)
    runtime, logger = create_runtime(package, gpu)
    loaded = load_engine(package, runtime, built.plan, profiles, errors=logger.errors)
    print("loaded", flush=True)
    model = load_model(root, adapter=facts.adapter().name, dtype=torch.float16)
    model.unet.to(device)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).half()

    width, at = model.unet.width, profiles[0]
    mask = torch.zeros(2, at.ip_tokens, device=device, dtype=torch.float16)
    mask[0, facts.reference_tokens :] = -torch.inf
    inputs = BatchInputs(
        sample=draw(2, facts.latent_channels, at.height, at.width),
        timestep=torch.tensor([10.0, 800.0], device=device),
        kv_text=draw(2, at.text_tokens, width),
        kv_ip=draw(2, at.ip_tokens, width),
        ip_mask=mask,
    )
    program: Any = TensorRTPrograms(package, [loaded], CudaStream(device)).program(inputs)
    with torch.inference_mode():
        wanted = model.unet(**inputs.named()).float()
        error = relative(program().float(), wanted)
    assert error < 3e-2, f"relative error {error:.1e}"
    return f"runs, relative error {error:.1e}, graph {program.call.captured} ({program.call.reason})"


def main() -> int:
    """Run every check that this machine can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-seconds", type=float, default=240.0)
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--only", default="torch,tensorrt", help="sections, of torch and tensorrt")
    parser.add_argument("--device", default="cuda", help="cpu tries the script itself")
    parser.add_argument(
        "--probe", nargs=4, metavar=("PACKAGE", "TARGET", "MODEL", "EXPORT"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    configure_logging("warning")
    if options.probe:
        package, target, root, export = options.probe
        print(probe(package, target, Path(root), Path(export)), flush=True)
        return 0
    report = Report(options.output, options.budget_seconds)
    report.figures["environment"] = environment()
    report.say(str(report.figures["environment"]))
    if options.device == "cuda" and not torch.cuda.is_available():
        report.lacks("a CUDA device: nothing can be checked here")
        return report.end()
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        report.lacks(f"diffusers ({error}), the reference of every check: put its wheel on PYTHONPATH")
        return report.end()
    # Full float32: TensorFloat-32 keeps 10 bits, and pictures would differ from diffusers' by more than rounding.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        run(
            report,
            options.only.split(","),
            torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu"),
            Path(folder),
        )
    return report.end()


def run(report: Report, only: list[str], device: torch.device, folder: Path) -> None:
    """Run the sections in order of worth."""
    from engine.embedded import model_directory
    from tests.tinymodels import TinySettings, build_tiny_model, build_tiny_xl

    check = Check(report, device, folder)
    tiny = build_tiny_model(folder / "tiny", TinySettings(adapters=("base", "plus")))
    models = [
        ("tiny", tiny, "base"),
        ("tiny-plus", tiny, "plus"),
        ("tiny-sdxl", build_tiny_xl(folder / "tiny-xl"), "base"),
        ("embedded", model_directory(), None),
    ]

    def adapter_of(root: Path, adapter: str | None) -> str | None:
        from engine.models.layout import ModelLayout

        return adapter or next(iter(ModelLayout.open(root).adapters()), None)

    for dtype in ("float32", "float16", "bfloat16") if "torch" in only else ():
        for label, root, adapter in models:
            if dtype == "bfloat16" and label == "tiny-plus":
                continue

            def compare(
                label: str = label, root: Path = root, adapter: str | None = adapter, dtype: str = dtype
            ) -> None:
                backend = check.torch_backend(root, adapter_of(root, adapter), dtype)
                check.rows(f"torch {label} {dtype}", backend)
                check.against_diffusers(
                    f"torch {label} {dtype}", root, adapter_of(root, adapter), dtype, backend
                )

            report.section(f"torch {label} {dtype}", compare, seconds=10)
    if "torch" in only:
        report.section("CUDA graphs", lambda: check.graph(tiny, "base"), seconds=10)
    for name in ("tensorrt", "tensorrt-rtx") if "tensorrt" in only else ():
        report.section(name, lambda name=name: tensorrt_sections(check, name, tiny, adapter_of), seconds=30)  # type: ignore[misc]


def tensorrt_sections(
    check: Check, name: str, tiny: Path, adapter_of: Callable[[Path, str | None], str | None]
) -> None:
    """Ask, in processes of their own, which targets build and run here; then compare pictures."""
    from engine.backends.tensorrt.errors import TensorRTError
    from engine.backends.tensorrt.package import load_package
    from engine.embedded import model_directory

    report = check.report
    try:
        package = load_package(name)
    except TensorRTError as error:
        report.lacks(str(error))
        return
    report.row(f"INFO {name} {package.version}")
    if missing := what_exports_lack():
        report.lacks(f"{missing}, without which {name} gets no graph")
        return
    export = exported(tiny, check.folder, "base", "float16", report.say).root
    runs = False
    for target in RTX_TARGETS if package.ahead_of_time else ("",):
        if report.left < 20:
            report.row(f"SKIPPED {name} target {target or 'this GPU'}: {report.left:.0f} s left")
            continue
        command = [
            sys.executable,
            "-m",
            "loadtests.gpu.check",
            "--probe",
            name,
            target,
            str(tiny),
            str(export),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=min(90, report.left), check=False
            )
        except subprocess.TimeoutExpired:
            report.row(f"INFO {name} engine for {target or 'this GPU'}: no end within the time")
            continue
        said = done.stdout.strip().replace("\n", "; ")[-300:]
        last = (done.stderr.strip().splitlines() or [""])[-1][-400:] if done.returncode else ""
        report.row(f"INFO {name} engine for {target or 'this GPU'}: status {done.returncode}: {said} {last}")
        report.figures.setdefault("probes", {})[f"{name} {target}"] = done.stdout + done.stderr[-4000:]
        runs = runs or (done.returncode == 0 and not target)
    if not runs:
        report.lacks(f"{name} does not build and run on this GPU; see the lines above")
        return
    models = (
        ("tiny", tiny, "base"),
        ("tiny-sdxl", check.folder / "tiny-xl", "base"),
        ("embedded", model_directory(), None),
    )
    for label, root, adapter in models:
        for dtype in ("float16", "float32"):
            report.section(
                f"{name} {label} {dtype}",
                lambda label=label, root=root, adapter=adapter, dtype=dtype: check.tensorrt(  # type: ignore[misc]
                    name, root, adapter_of(root, adapter), label, dtype
                ),
                seconds=40,
            )


if __name__ == "__main__":
    sys.exit(main())
