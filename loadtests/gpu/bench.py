"""Speed on a GPU, at published sizes with random weights, against diffusers on the same card.

``make gpu-bench`` or ``python -m loadtests.gpu.bench --budget-seconds 400 --output bench.json``. Installs nothing; what
is missing is named and the rest runs. ``--only`` chooses sections. The last table repeats every figure.

Milliseconds are medians of CUDA event times after warm-up; FLOPs are counted by torch's FlopCounterMode on the module
that is timed (2 for each multiply-add of convolutions, matrix products and attention).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.backends.base import MAX_REFERENCES, Backend
from engine.backends.device.backend import BatchInputs, DeviceBackend
from engine.backends.device.stream import CudaStream, Stream
from engine.backends.device.torch_programs import TorchDeviceSettings, TorchPrograms
from engine.loop.logs import configure_logging
from engine.models.unet import ConditionedUNet
from loadtests.gpu import published
from loadtests.gpu.driver import LoopDriver, picture
from loadtests.gpu.exported import exported, what_exports_lack
from loadtests.gpu.report import Report, environment

HALF = torch.float16
TEXT_TOKENS, IP_TOKENS = 77, 4
SECTIONS = ("card", "sd15", "sdxl", "loop", "peers", "compile", "tensorrt")
TIMED_SECONDS = 0.5
STEPS, GUIDANCE = 20, 5.0


class Bench:
    """One run on one card."""

    def __init__(self, report: Report, options: argparse.Namespace, folder: Path) -> None:
        self.report = report
        self.dry = bool(options.dry_run)
        self.device = torch.device("cpu") if self.dry else torch.device("cuda", 0)
        self.options = options
        self.folder = folder
        self.gemm = 0.0
        """Measured FLOP/s of an fp16 matrix product."""
        self.flops: dict[str, float] = {}
        self.model_root: Path | None = None

    # What is timed.

    def median_ms(self, call: Callable[[], object], *, seconds: float = TIMED_SECONDS) -> float:
        """Return the median milliseconds of a call."""
        for _ in range(3):
            call()
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < 5 or (time.perf_counter() - began < seconds and len(times) < 200):
            times.append(self.once_ms(call))
        return statistics.median(times)

    def once_ms(self, call: Callable[[], object]) -> float:
        """Return the milliseconds of one call, by the device's clock where there is one."""
        if self.dry:
            began = time.perf_counter()
            call()
            return 1000 * (time.perf_counter() - began)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def stream(self) -> Stream:
        """Return a stream of the device."""
        if self.dry:
            from tests.backends.host_stream import HostStream

            return HostStream()
        return CudaStream(self.device)

    def tick(
        self, family: str, bucket: int, variant: str, milliseconds: float, flops: float | None = None
    ) -> None:
        """Record what one tick takes."""
        flops = self.flops[family] * bucket if flops is None else flops
        rate = flops / milliseconds * 1e3
        share = f"{rate / self.gemm:6.1%} of GEMM" if self.gemm else ""
        self.report.figures.setdefault("ticks", {}).setdefault(family, {}).setdefault(variant, {})[bucket] = {
            "ms": milliseconds,
            "ms_row": milliseconds / bucket,
            "tflops": rate / 1e12,
            "gemm_share": rate / self.gemm if self.gemm else None,
        }
        self.report.row(
            f"{family:5} bucket {bucket:2} {variant:32} {milliseconds:9.3f} ms {milliseconds / bucket:8.3f} ms/row "
            f"{rate / 1e12:7.1f} TFLOP/s {share}"
        )

    # Sections.

    def card(self) -> None:
        """Measure the card's own ceilings."""
        side = 256 if self.dry else 8192
        for dtype in (torch.bfloat16, torch.float16):
            left, right = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
            milliseconds = self.median_ms(lambda left=left, right=right: left @ right, seconds=1.0)  # type: ignore[misc]
            rate = 2 * side**3 / milliseconds * 1e3
            if dtype == HALF:
                self.gemm = rate
            self.report.figures.setdefault("gemm_tflops", {})[str(dtype)] = rate / 1e12
            self.report.row(f"GEMM {side}^3 {dtype}: {milliseconds:.3f} ms, {rate / 1e12:.1f} TFLOP/s")
        source = torch.randn((1 << 20) if self.dry else (1 << 30), device=self.device)
        target = torch.empty_like(source)
        milliseconds = self.median_ms(lambda: target.copy_(source))
        rate = 2 * source.nbytes / milliseconds * 1e3
        self.report.figures["copy_tb_s"] = rate / 1e12
        self.report.row(f"copy on the device: {rate / 1e12:.2f} TB/s, read and written")

    def cells(self, family: str) -> int:
        """Return height and width of the latents."""
        return 16 if self.dry else {"sd15": 64, "sdxl": 128}[family]

    def settings(self, family: str) -> dict[str, Any]:
        """Return the UNet's configuration."""
        return {"sd15": published.SD15_UNET, "sdxl": published.SDXL_UNET}[family]

    def inputs(self, family: str, bucket: int, width: int, *, references: int = 1) -> BatchInputs:
        """Return random inputs for a bucket; with room for several references there is a mask, as in the slots."""
        side, xl = self.cells(family), family == "sdxl"
        tokens = references * IP_TOKENS

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=self.device, dtype=HALF)

        return BatchInputs(
            sample=draw(bucket, 4, side, side),
            timestep=torch.linspace(1, 999, bucket, device=self.device),
            kv_text=draw(bucket, TEXT_TOKENS, width),
            kv_ip=draw(bucket, tokens, width),
            ip_mask=torch.zeros(bucket, tokens, device=self.device, dtype=HALF) if references > 1 else None,
            text_embeds=draw(bucket, 1280).float() if xl else None,
            time_ids=torch.full((bucket, 6), 1024.0, device=self.device) if xl else None,
        )

    def plain_call(self, family: str, unet: Any, bucket: int) -> Callable[[], torch.Tensor]:
        """Return a call of diffusers' UNet as its pipeline makes it, without an adapter."""
        at = self.inputs(family, bucket, 2)
        width = self.settings(family)["cross_attention_dim"]
        hidden = torch.randn(bucket, TEXT_TOKENS, width, device=self.device, dtype=HALF)
        added = None
        if at.text_embeds is not None and at.time_ids is not None:
            added = {"text_embeds": at.text_embeds.to(HALF), "time_ids": at.time_ids.to(HALF)}

        def call() -> torch.Tensor:
            with torch.inference_mode():
                output: torch.Tensor = unet(
                    at.sample, at.timestep, hidden, added_cond_kwargs=added, return_dict=False
                )[0]
                return output

        return call

    def ticks(self, family: str) -> None:
        """Time a UNet in every bucket: diffusers' eager, ours eager, ours as CUDA graphs.

        The graphs have room for one reference, for as many as a row may bring, and for one in the other layout.
        """
        buckets = (1, 2) if self.dry else {"sd15": (1, 2, 4, 8, 16, 32), "sdxl": (1, 2, 4, 8, 16)}[family]
        unet: Any = published.unet(family, dtype=HALF, device=self.device)
        calls = {bucket: self.plain_call(family, unet, bucket) for bucket in buckets}
        plain_flops = counted(calls[1])
        for bucket, call in calls.items():
            self.tick(family, bucket, "diffusers eager", self.median_ms(call), plain_flops * bucket)
        ours = ConditionedUNet(unet).eval()
        for bucket in buckets:
            at = self.inputs(family, bucket, ours.width)

            def eager(at: BatchInputs = at) -> torch.Tensor:
                with torch.inference_mode():
                    output: torch.Tensor = ours(**at.named())
                    return output

            if bucket == 1:
                self.flops[family] = counted(eager)
                self.report.figures.setdefault("tflop_a_row", {})[family] = {
                    "ours": self.flops[family] / 1e12,
                    "diffusers": plain_flops / 1e12,
                }
                self.report.row(
                    f"{family} TFLOP a row: ours {self.flops[family] / 1e12:.3f}, diffusers {plain_flops / 1e12:.3f}"
                )
            assert torch.isfinite(eager()).all(), "the random UNet's output is not finite"
            self.tick(family, bucket, "limner eager", self.median_ms(eager))
        variants = (
            ("limner graph", TorchDeviceSettings(buckets=buckets), 1),
            (
                f"limner graph {MAX_REFERENCES} references",
                TorchDeviceSettings(buckets=buckets),
                MAX_REFERENCES,
            ),
            # Last: it lays the module's weights out anew.
            ("limner graph channels_last", TorchDeviceSettings(buckets=buckets, channels_last=True), 1),
        )
        for variant, settings, references in variants:
            programs = TorchPrograms(ours, self.stream(), settings)
            for bucket in buckets:
                try:
                    program = programs.program(self.inputs(family, bucket, ours.width, references=references))
                    milliseconds = self.median_ms(program)
                except torch.OutOfMemoryError as error:
                    self.report.row(f"SKIPPED {family} bucket {bucket} {variant}: {str(error)[:120]}")
                    break
                self.tick(family, bucket, variant, milliseconds)
                if not program.call.captured:
                    self.report.row(f"INFO {program.call.name}: no graph, {program.call.reason}")
                del program
        self.free()

    def compiled(self, family: str, buckets: tuple[int, ...]) -> None:
        """Time torch.compile, ours with a CUDA graph and diffusers' with compile's own graphs."""
        for bucket in buckets:
            for variant in ("limner compile + graph", "diffusers compile reduce-overhead"):
                if self.report.left < (0 if self.dry else 60):
                    self.report.row(
                        f"SKIPPED {family} bucket {bucket} {variant}: {self.report.left:.0f} s left"
                    )
                    continue
                torch.compiler.reset()
                unet: Any = published.unet(family, dtype=HALF, device=self.device)
                began = time.perf_counter()
                call: Callable[[], object]
                if variant.startswith("limner"):
                    ours = ConditionedUNet(unet).eval()
                    settings = TorchDeviceSettings(buckets=(bucket,), compile=True)
                    call = TorchPrograms(ours, self.stream(), settings).program(
                        self.inputs(family, bucket, ours.width)
                    )
                    call()
                    flops = self.flops.get(family, 0) * bucket
                else:
                    unet.to(memory_format=torch.channels_last)
                    compiled = torch.compile(unet, mode="reduce-overhead", dynamic=False)
                    call = self.plain_call(family, compiled, bucket)
                    call()
                    flops = counted(self.plain_call(family, unet, 1)) * bucket
                took = time.perf_counter() - began
                self.tick(family, bucket, variant, self.median_ms(call), flops)
                self.report.row(f"INFO {family} bucket {bucket} {variant}: first call took {took:.0f} s")
                del unet, call
                self.free()

    def root(self) -> Path:
        """Write the model directory of SD 1.5's size, once."""
        if self.model_root is None:
            self.report.say("writing a model of published size")
            if self.dry:
                from tests.tinymodels import build_tiny_model

                self.model_root = build_tiny_model(self.folder / "sd15")
            else:
                self.model_root = published.write_model("sd15", self.folder / "sd15", device=self.device)
            self.report.say("written")
        return self.model_root

    def backend(self, *, settings: TorchDeviceSettings) -> DeviceBackend:
        """Load the model on our torch backend."""
        from engine.backends.device.torch_programs import torch_device_backend
        from engine.models.model import load_model

        model = load_model(self.root(), adapter="base", dtype=HALF)
        if not self.dry:
            return torch_device_backend(model, self.device, settings)
        programs = TorchPrograms(model.unet, self.stream(), settings)
        return DeviceBackend(model, programs, device=self.device, capacity=64)

    def loop(self) -> None:
        """Measure images a second through the engine's loop, and one image alone."""
        backend = self.backend(settings=TorchDeviceSettings(buckets=(1, 2, 4, 8, 16, 32), capacity=96))
        self.measure_loop("limner loop, graph", backend)
        del backend
        self.free()

    def measure_loop(self, label: str, backend: Backend) -> None:
        """Drive one backend."""
        from engine.loop.warmup import calibrate

        facts = backend.facts
        side = facts.default_height // facts.latent_scale
        buckets = backend.buckets((facts.latent_channels, side, side))
        calibration = calibrate(
            backend, buckets, time.monotonic, decode_batch=8, patience_ticks=2, reference_batch=4
        )
        ticks = {bucket: round(1000 * seconds, 2) for bucket, seconds in calibration.tick_seconds.items()}
        self.report.row(f"INFO {label}: ms a tick as the loop sees it {ticks}")
        driver = LoopDriver(
            backend, tick_seconds=calibration.tick_seconds, decode=max(2, calibration.decode_plan.batch)
        )
        tokens = driver.encode(picture(0))
        driver.rate(tokens, images=2, in_flight=1, steps=2, guidance_scale=GUIDANCE)
        for in_flight, images in ((1, 4), (4, 16), (8, 32), (16, 48), (32, 64)):
            rate = driver.rate(
                tokens, images=images, in_flight=in_flight, steps=STEPS, guidance_scale=GUIDANCE
            )
            self.rate(f"{label}, {in_flight} in flight", rate)

    def rate(self, label: str, images_a_second: float) -> None:
        """Record images a second."""
        self.report.figures.setdefault("images_a_second", {})[label] = images_a_second
        self.report.row(f"{label:52} {images_a_second:8.3f} images/s")

    def peers(self) -> None:
        """Measure diffusers' pipeline eager, call by call and in batches of one prompt."""
        pipeline, embeds = self.pipeline()
        for images in (1, 4, 8, 16):
            self.peer(f"diffusers pipeline eager, {images} a call", pipeline, embeds, images)
        del pipeline
        self.free()

    def peer_compiled(self) -> None:
        """Measure diffusers' pipeline with its UNet compiled."""
        pipeline, embeds = self.pipeline()
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet, mode="reduce-overhead", dynamic=False)
        self.peer("diffusers pipeline compiled, 1 a call", pipeline, embeds, 1)
        del pipeline
        self.free()

    def pipeline(self) -> tuple[Any, Any]:
        """Open diffusers' pipeline with the adapter; the reference is encoded once, outside the measured time."""
        from tests.tinymodels import open_pipeline

        pipeline = open_pipeline(self.root(), adapter="base", dtype=HALF).to(self.device)
        pipeline.set_ip_adapter_scale(1.0)
        embeds = pipeline.prepare_ip_adapter_image_embeds(
            picture(0), None, self.device, 1, do_classifier_free_guidance=True
        )
        return pipeline, embeds

    def peer(self, label: str, pipeline: Any, embeds: Any, images: int) -> None:
        """Measure calls of so many images."""

        def call(steps: int = STEPS) -> None:
            pipeline(
                "a portrait of a man with a red hat",
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                num_images_per_prompt=images,
                ip_adapter_image_embeds=embeds,
                generator=torch.Generator().manual_seed(1),
            )

        began = time.perf_counter()
        call(3)
        self.report.say(f"{label}: first call {time.perf_counter() - began:.1f} s")
        began, calls = time.perf_counter(), 0
        while calls < 2 or time.perf_counter() - began < 3:
            call()
            calls += 1
        self.rate(label, images * calls / (time.perf_counter() - began))

    def tensorrt(self, name: str) -> None:
        """Build SD 1.5's UNet with TensorRT on this card and time it, after a tiny engine has run here."""
        from engine.backends.tensorrt.backend import TensorRTSettings
        from engine.backends.tensorrt.builder import BuildSettings, build_engine
        from engine.backends.tensorrt.driver import find_gpu
        from engine.backends.tensorrt.errors import TensorRTError
        from engine.backends.tensorrt.graph import unet_graph
        from engine.backends.tensorrt.package import load_package
        from engine.backends.tensorrt.runner import TensorRTPrograms, create_runtime, load_engine
        from engine.models.model import load_model

        try:
            package, gpu = load_package(name), find_gpu()
        except TensorRTError as error:
            self.report.lacks(str(error))
            return
        if missing := what_exports_lack():
            self.report.lacks(f"{missing}, without which {name} gets no graph")
            return
        if not self.tiny_engine_runs(name):
            return
        began = time.perf_counter()
        export = exported(self.root(), self.folder, "base", "float16", self.report.say)
        self.report.row(f"INFO export of sd15: {time.perf_counter() - began:.0f} s")
        self.report.save()
        # As it is served: with room for all references of a row.
        profiles = TensorRTSettings(buckets=(1, 2, 4, 8, 16)).profiles(export.manifest.facts)
        built = build_engine(
            package, unet_graph(export).path, profiles, BuildSettings(), report=self.report.say
        )
        self.report.row(
            f"INFO {name} {package.version} sd15 built in {built.seconds:.0f} s, {memoryview(built.plan).nbytes} bytes"
        )
        runtime, logger = create_runtime(package, gpu)
        loaded = load_engine(package, runtime, built.plan, profiles, errors=logger.errors)
        programs = TensorRTPrograms(package, [loaded], self.stream())
        ours = load_model(self.root(), adapter="base", dtype=HALF).unet.to(self.device)
        for profile in profiles:
            at = self.inputs("sd15", profile.rows, ours.width, references=MAX_REFERENCES)
            program = programs.program(at)
            with torch.inference_mode():
                wanted = ours(**at.named()).float()
                gap = float((program().float() - wanted).norm() / wanted.norm())
            self.report.check(f"{name} sd15 bucket {profile.rows} = torch", gap < 5e-2, f"relative {gap:.1e}")
            self.tick(
                "sd15", profile.rows, f"limner {name} graph={program.call.captured}", self.median_ms(program)
            )

    def tiny_engine_runs(self, name: str) -> bool:
        """Build and run a tiny engine in a process of its own: what fails there may crash."""
        from tests.tinymodels import build_tiny_model

        root = build_tiny_model(self.folder / "tiny")
        export = exported(root, self.folder, "base", "float16", self.report.say).root
        command = [sys.executable, "-m", "loadtests.gpu.check", "--probe", name, "", str(root), str(export)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            self.report.lacks(
                f"{name} on this GPU: status {done.returncode}, {done.stdout.strip()} {said[-300:]}"
            )
        return done.returncode == 0

    def free(self) -> None:
        """Give device memory back."""
        import gc

        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()


def counted(call: Callable[[], object]) -> float:
    """Return the FLOPs of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def main() -> int:
    """Run the sections in order of worth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-seconds", type=float, default=420.0)
    parser.add_argument("--output", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections, of {', '.join(SECTIONS)}")
    parser.add_argument("--sd15-compile-buckets", default="2,16")
    parser.add_argument("--sdxl-compile-buckets", default="2")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny networks on the CPU: tries the script itself"
    )
    options = parser.parse_args()
    configure_logging("warning")
    only = options.only.split(",")
    report = Report(options.output, options.budget_seconds)
    report.figures["environment"] = environment()
    report.row(", ".join(f"{name} {value}" for name, value in report.figures["environment"].items()))
    if not options.dry_run and not torch.cuda.is_available():
        report.lacks("a CUDA device: nothing can be measured here")
        return report.end()
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        report.lacks(f"diffusers ({error}): put its wheel on PYTHONPATH")
        return report.end()
    if options.dry_run:
        published.SD15_UNET.update(block_out_channels=(32,) * 4, cross_attention_dim=32, layers_per_block=1)
        published.SDXL_UNET.update(
            block_out_channels=(32,) * 3, cross_attention_dim=32, layers_per_block=1, attention_head_dim=8
        )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(report, options, Path(folder))
        sections: list[tuple[str, str, Callable[[], None], float]] = [
            ("card", "the card", bench.card, 5),
            ("sd15", "SD 1.5, ticks", lambda: bench.ticks("sd15"), 20),
            ("sdxl", "SDXL, ticks", lambda: bench.ticks("sdxl"), 30),
            ("loop", "SD 1.5, engine loop", bench.loop, 60),
            ("peers", "SD 1.5, diffusers' pipeline", bench.peers, 40),
            ("tensorrt", "TensorRT", lambda: bench.tensorrt("tensorrt"), 30),
            ("tensorrt", "TensorRT-RTX", lambda: bench.tensorrt("tensorrt-rtx"), 30),
            (
                "compile",
                "SD 1.5, compiled",
                lambda: bench.compiled("sd15", sizes(options.sd15_compile_buckets)),
                90,
            ),
            ("compile", "SD 1.5, diffusers' pipeline compiled", bench.peer_compiled, 90),
            (
                "compile",
                "SDXL, compiled",
                lambda: bench.compiled("sdxl", sizes(options.sdxl_compile_buckets)),
                150,
            ),
        ]
        for key, name, run, seconds in sections:
            if key in only:
                report.section(name, run, seconds=0 if options.dry_run else seconds)
    return report.end()


def sizes(text: str) -> tuple[int, ...]:
    """Read a comma-separated list."""
    return tuple(int(part) for part in text.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
