"""The torch backend: rows apart from each other, and equality with diffusers' pipeline."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from engine.backends.base import PlacedReference, RowConditioning
from engine.backends.registry import UnknownBackendError, create_backend
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models.model import Model, load_model
from tests.backends.rows import TORCH_SETTINGS, conditioning, inputs, row_of
from tests.tinymodels import build_tiny_model, open_pipeline


@pytest.fixture(scope="module")
def served(model: Model) -> tuple[TorchBackend, list[int]]:
    """Return the backend as it is served, and more rows than its largest bucket holds."""
    backend = TorchBackend(model)
    rows = max(TorchSettings().buckets) + 4
    return backend, [backend.place(conditioning(backend, index)) for index in range(rows)]


@pytest.mark.parametrize("bucket", TorchSettings().buckets)
def test_a_row_is_bit_independent_of_position_and_neighbours(
    served: tuple[TorchBackend, list[int]], bucket: int
) -> None:
    backend, slots = served
    rows = range(len(slots))
    sample, step = inputs(len(slots))
    alone = torch.cat(
        [backend.predict_noise([slots[i]], sample[i : i + 1], step[i : i + 1], bucket) for i in rows]
    )
    order = random.Random(bucket)
    for _ in range(6):
        chosen = order.sample(rows, order.randint(1, bucket))
        together = backend.predict_noise([slots[i] for i in chosen], sample[chosen], step[chosen], bucket)
        assert torch.equal(together, alone[chosen])


def test_buckets_agree_within_tolerance(backend: TorchBackend) -> None:
    slots = [backend.place(conditioning(backend, index)) for index in range(2)]
    sample, step = inputs(2)
    first = backend.predict_noise(slots, sample, step, 2)
    for bucket in (4, 8):
        torch.testing.assert_close(
            backend.predict_noise(slots, sample, step, bucket), first, rtol=0, atol=5e-6
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_bad_row_leaves_the_others_alone(backend: TorchBackend, bad: float) -> None:
    slots = [backend.place(conditioning(backend, index)) for index in range(4)]
    sample, step = inputs(4)
    sound = backend.predict_noise(slots, sample, step, 4)
    sample[1] = bad
    spoilt = backend.predict_noise(slots, sample, step, 4)
    keep = [0, 2, 3]
    assert torch.equal(spoilt[keep], sound[keep])


def test_a_bad_conditioning_leaves_the_others_and_later_rows_alone(backend: TorchBackend) -> None:
    sample, step = inputs(4)
    slots = [backend.place(conditioning(backend, index)) for index in range(4)]
    sound = backend.predict_noise(slots, sample, step, 4)
    backend.release(slots[1])
    bad = conditioning(backend, 1)
    tokens = torch.full((2, *bad.references[0].tokens.shape), torch.nan)
    slots[1] = backend.place(row_of(backend, bad.prompt, *tokens))
    spoilt = backend.predict_noise(slots, sample, step, 4)
    assert torch.equal(spoilt[[0, 2, 3]], sound[[0, 2, 3]]) and spoilt[1].isnan().all()
    backend.release(slots[1])
    # The slot's stale values now pad the bucket; then a row without a reference takes it.
    keep = [0, 2, 3]
    assert torch.equal(
        backend.predict_noise([slots[i] for i in keep], sample[keep], step[keep], 4), sound[keep]
    )
    for row in (RowConditioning(prompt=bad.prompt), bad):
        assert backend.place(row) == slots[1]
        assert backend.predict_noise(slots, sample, step, 4).isfinite().all()
        backend.release(slots[1])


def test_a_guided_tick_equals_the_pipeline(root: Path, backend: TorchBackend) -> None:
    pipe = open_pipeline(root, adapter="base")
    pipe.set_ip_adapter_scale(0.7)
    size = backend.facts.reference_size
    pixels = torch.randint(
        0, 256, (1, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    (tokens,) = backend.encode_images(pixels)
    prompt, negative = backend.encode_prompts(["a portrait of a man", "hat"])
    slots = [
        backend.place(row_of(backend, negative, backend.unconditional_tokens["base"], scale=0.7)),
        backend.place(row_of(backend, prompt, tokens, scale=0.7)),
    ]
    sample, _ = inputs(1)
    ours = backend.predict_noise(slots, sample.repeat(2, 1, 1, 1), torch.tensor([401.0, 401.0]), 2)
    with torch.inference_mode():
        from PIL import Image

        positive, uncond = pipe.encode_prompt("a portrait of a man", "cpu", 1, True, "hat")
        embeds = pipe.prepare_ip_adapter_image_embeds(
            Image.fromarray(pixels[0].numpy()), None, "cpu", 1, True
        )
        theirs = pipe.unet(
            sample.repeat(2, 1, 1, 1),
            torch.tensor(401),
            torch.cat([uncond, positive]),
            added_cond_kwargs={"image_embeds": embeds},
            return_dict=False,
        )[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6)


def test_other_latent_sizes_run(backend: TorchBackend) -> None:
    slot = backend.place(conditioning(backend, 0))
    for height, width in ((4, 8), (10, 6), (16, 16)):
        noise = backend.predict_noise([slot], torch.randn(1, 4, height, width), torch.tensor([5.0]), 2)
        assert noise.shape == (1, 4, height, width) and noise.dtype == torch.float32


def test_a_model_without_an_adapter_takes_no_reference(tmp_path: Path) -> None:
    from tests.tinymodels import TinySettings

    plain = TorchBackend(load_model(build_tiny_model(tmp_path, TinySettings(adapters=()))), TORCH_SETTINGS)
    (prompt,) = plain.encode_prompts(["a hat"])
    assert plain.unconditional_tokens == {}
    with pytest.raises(ValueError, match="no adapter"):
        plain.encode_images(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    orphan = PlacedReference(adapter="base", tokens=torch.zeros(4, 32), scales=(1.0,) * plain.facts.layers)
    with pytest.raises(ValueError, match="no adapter"):
        plain.place(RowConditioning(prompt=prompt, references=(orphan,)))
    slot = plain.place(RowConditioning(prompt=prompt))
    assert plain.predict_noise([slot], torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), 1).isfinite().all()


def test_bfloat16_is_close(root: Path, backend: TorchBackend) -> None:
    half = create_backend("torch", root, dtype="bfloat16")
    rows = [conditioning(backend, index) for index in range(4)]
    sample, step = inputs(4)
    exact = backend.predict_noise([backend.place(row) for row in rows], sample, step, 4)
    found = half.predict_noise([half.place(row) for row in rows], sample, step, 4)
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() < 0.05


def test_registry_refuses_what_it_does_not_have(root: Path) -> None:
    with pytest.raises(UnknownBackendError, match="torch"):
        create_backend("abacus", root)
    with pytest.raises(UnknownBackendError, match="float32"):
        create_backend("torch", root, dtype="int4")


@pytest.mark.parametrize(
    "settings", [{"buckets": ()}, {"buckets": (0, 1)}, {"capacity": 3}, {"max_references": 0}]
)
def test_settings_that_cannot_hold_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|less than"):
        TorchSettings(**settings)  # type: ignore[arg-type]


def test_other_buckets_bring_room_for_twice_the_largest() -> None:
    settings = TorchSettings(packed=False)
    assert settings.with_buckets(None) is settings
    few, many = settings.with_buckets((1, 8)), settings.with_buckets((100,))
    assert (few.buckets, few.capacity, few.packed) == ((1, 8), settings.capacity, False)
    assert (many.buckets, many.capacity) == ((100,), 200)
