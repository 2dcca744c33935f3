"""The packed networks compute what the modules they were packed from compute."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import structlog
import torch
from torch import nn

from engine.backends.packed import decoder as packed_decoder
from engine.backends.packed import onednn
from engine.backends.packed import unet as packed_unet
from engine.backends.packed.blocks import PackedNorm, Size
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models.model import load_model
from engine.models.vae import LatentDecoder
from tests.tinymodels import LCM, SD2, TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

pytestmark = pytest.mark.skipif(not onednn.available(), reason="this torch has no packed operators")

VARIANTS = {
    "base": TinySettings(),
    "linear projection, two layers": TinySettings(linear_projection=True, layers_per_block=2),
    "three stages": TinySettings(block_out_channels=(32, 32, 64), image_size=128),
    "full-face": TinySettings(adapters=("full-face",)),
    "12 latent channels": TinySettings(latent_channels=12),
    "guidance as an input": LCM,
    "v-prediction, heads by stage": SD2,
    "sdxl": TinyXLSettings(),
    "sdxl, guidance as an input": TinyXLSettings(layers_per_block=2, guidance_width=16),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_unet_and_decoder_equal_their_modules(tmp_path: Path, variant: str) -> None:
    settings = VARIANTS[variant]
    built = build_tiny_xl if isinstance(settings, TinyXLSettings) else build_tiny_model
    model = load_model(built(tmp_path, settings))  # type: ignore[operator]
    unet = packed_unet.pack_unet(model.unet, 4, 8, 8)
    decoder = packed_decoder.pack_decoder(model.decoder, 8, 8)
    assert unet is not None and decoder is not None
    torch.manual_seed(0)
    width, tokens = model.unet.width, model.facts.reference_tokens
    for rows, height, wide in ((1, 8, 8), (4, 8, 8), (3, 10, 6), (2, 5, 7)):
        sample, step = (
            torch.randn(rows, model.facts.latent_channels, height, wide),
            torch.linspace(0, 999, rows),
        )
        kv_text, kv_ip = torch.randn(rows, 77, width), torch.randn(rows, tokens, width)
        mask = torch.zeros(rows, tokens)
        mask[0, 1:] = -torch.inf
        vectors = {name: 9 * torch.rand(rows, wide) for name, wide in model.unet.added.widths().items()}
        with torch.inference_mode():
            for extra in ((), (mask,)):
                expected = model.unet(sample, step, kv_text, kv_ip, *extra, **vectors)
                found = unet(sample, step, kv_text, kv_ip, *extra, **vectors)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        pixels = decoder.decode(sample).int() - model.decoder.decode(sample).int()
        assert pixels.abs().max() <= 1


def test_float_weights_are_free_once_packed(tmp_path: Path) -> None:
    model = load_model(build_tiny_model(tmp_path))
    modules = (model.unet.unet.conv_in, model.unet.unet.mid_block, model.decoder.vae.decoder.conv_in)
    weights = [
        weakref.ref(weight) for module in modules for weight in module.parameters() if weight.dim() == 4
    ]
    backend = TorchBackend(model)
    del model, modules
    gc.collect()
    assert weights and not [weight for weight in weights if weight() is not None]
    assert backend.facts.latent_channels == 4


def test_decoder_without_attention_and_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        mid_block_add_attention=False,
    ).eval()
    plain = LatentDecoder(vae)
    packed = packed_decoder.pack_decoder(plain, 8, 8)
    assert packed is not None
    latents = torch.randn(5, 4, 8, 8)
    monkeypatch.setattr(packed_decoder, "CELLS", 128)
    assert (packed.decode(latents).int() - plain.decode(latents).int()).abs().max() <= 1


@pytest.mark.parametrize("silu", [True, False])
def test_norm_equals_group_norm_after_a_shift(silu: bool) -> None:
    torch.manual_seed(2)
    norm = nn.GroupNorm(8, 32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # A mean far from zero is where one-pass variance loses its digits.
    x, shift = torch.randn(3, 20, 32) + 100, torch.randn(3, 32)
    with torch.no_grad():
        found = PackedNorm(norm)(x, silu=silu, shift=shift)
        exact = norm.double()((x.double() + shift.double()[:, None]).transpose(1, 2)).transpose(1, 2)
        if silu:
            exact = nn.functional.silu(exact)
    # torch's own kernel is 1e-5 off here; one-pass variance would be 1e-2 off.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-5)


def test_size_views_without_copying() -> None:
    tokens = torch.randn(2, 12, 5)
    image = Size(2, 3, 4).image(tokens)
    assert image.shape == (2, 5, 3, 4) and image.data_ptr() == tokens.data_ptr()


def test_unknown_blocks_fall_back_to_the_module(tmp_path: Path) -> None:
    model = load_model(build_tiny_model(tmp_path))
    model.unet.unet.mid_block = nn.Identity()  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs:
        assert packed_unet.pack_unet(model.unet, 1, 8, 8) is None
    (warning,) = logs
    assert (warning["log_level"], "mid block" in warning["reason"]) == ("warning", True)


def test_without_packed_operators_the_module_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(build_tiny_model(tmp_path))
    monkeypatch.setattr(packed_unet, "available", lambda: False)
    monkeypatch.setattr(packed_decoder, "available", lambda: False)
    with structlog.testing.capture_logs() as logs:
        backend = TorchBackend(model, TorchSettings(buckets=(1,), capacity=1))
    assert ["no packed operators" in entry["reason"] for entry in logs] == [True, True]
    assert backend.decode_latents(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)
