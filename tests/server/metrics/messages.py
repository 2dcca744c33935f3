"""Engine messages for the tests."""

from __future__ import annotations

from engine.protocol.messages import AdapterInfo, Finished, ModelInfo, Ready, TickReport

MODEL = ModelInfo(
    name="limner-portraits",
    family="sd1",
    weights_hash="0123",
    adapters=(AdapterInfo(name="base", kind="base", tokens=4, weights_hash="abc"),),
    reference_layers=("all",),
    max_references=4,
    latent_channels=4,
    latent_scale=8,
    default_height=128,
    default_width=128,
    size_multiple=8,
    min_size=64,
    max_size=256,
    prompt_tokens=77,
    reference_size=64,
    token_width=256,
    preprocessing="clip",
    preprocessor={},
    default_sampler="ddim",
    default_steps=20,
    default_guidance_scale=4.0,
)


def ready() -> Ready:
    return Ready(
        model=MODEL,
        samplers=(),
        buckets=(1, 2, 4),
        tick_seconds={},
        backend="torch",
        device="cpu",
        pid=1,
        load_seconds=1.5,
        warmup_seconds=2.5,
    )


def finished() -> Finished:
    return Finished(
        job_id="j",
        queue_seconds=0.2,
        encode_prompt_seconds=0.01,
        denoise_seconds=2.0,
        decode_seconds=0.1,
        mean_batch_rows=3.5,
        prompt_dropped="",
        negative_prompt_dropped="",
    )


def tick(
    bucket: int = 4, useful: int = 3, *, busy: float = 1.0, cpu: float = 2.0, encoded: int = 1
) -> TickReport:
    return TickReport(
        bucket=bucket,
        useful_rows=useful,
        seconds=0.05,
        waiting=5,
        running=2,
        oldest_wait_seconds=0.7,
        busy_seconds=busy,
        encoded_references=encoded,
        resident_bytes=10**9,
        cpu_seconds=cpu,
    )
