"""The compiled backend against the torch backend: tokens, prompts, rows, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from engine.backends.base import PlacedReference, RowConditioning
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import best_dtype
from engine.backends.options import BackendOptions, UnknownBackendError
from engine.backends.registry import create_backend
from engine.backends.slots import SlotError
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.config import default_cache_dir
from engine.embedded import model_directory
from engine.models.layout import ModelLayout
from engine.models.model import load_model
from engine.models.prompt_encoder import load_prompt_encoder
from tests.backends.rows import row_of
from tests.compiled import RUNTIMES, compiled, exported, make_runtime
from tests.tinymodels import TinySettings, build_tiny_model

TEXTS = (
    "",
    "a portrait of Émile, wearing a red   hat!!! \N{GRINNING FACE} <|endoftext|> x",
    "A Man's (smiling) PORTRAIT, 1234 \t\n ok",
    "a red hat " * 60,
    "ünïcödé 肖像 " * 40,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def reference(root: Path) -> TorchBackend:
    return TorchBackend(load_model(root), TorchSettings(buckets=(1, 2, 4), capacity=8))


@pytest.mark.parametrize("which", ["tiny", "shipped"])
def test_texts_become_the_same_tokens_without_transformers(root: Path, tmp_path: Path, which: str) -> None:
    from engine.backends.compiled.prompts import PromptTokenizer

    path = root if which == "tiny" else tmp_path / "model"
    if which == "shipped":
        path.symlink_to(model_directory())
    encoder = load_prompt_encoder(ModelLayout.open(path), dtype=torch.float32)
    export = exported(path)
    prompts = export.manifest.prompts
    tokenizer = PromptTokenizer(export.tokenizers[0], window=prompts.tokens, pad_id=prompts.pad_ids[0])
    ids, dropped = tokenizer.encode(TEXTS)
    expected = encoder.tokenizer(
        list(TEXTS), padding="max_length", max_length=encoder.tokens, truncation=True, return_tensors="pt"
    ).input_ids
    assert torch.equal(ids, expected)
    assert dropped == [encoder.dropped(text) for text in TEXTS]
    assert any(dropped)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_part_computes_what_torch_does(root: Path, reference: TorchBackend, runtime: str) -> None:
    backend = compiled(runtime, root)
    assert backend.facts == reference.facts
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=generator)
    tokens = backend.encode_images(pixels)
    torch.testing.assert_close(tokens, reference.encode_images(pixels), rtol=0, atol=1e-5)
    assert backend.unconditional_tokens.keys() == reference.unconditional_tokens.keys()
    for name, nothing in backend.unconditional_tokens.items():
        assert torch.equal(nothing, reference.unconditional_tokens[name])
    prompts = backend.encode_prompts(TEXTS)
    for ours, theirs in zip(prompts, reference.encode_prompts(TEXTS), strict=True):
        torch.testing.assert_close(ours.embedding, theirs.embedding, rtol=0, atol=1e-5)
        assert ours.dropped == theirs.dropped
    rows = [
        row_of(backend, prompts[0], tokens[0], scale=0.7),
        RowConditioning(prompt=prompts[1]),
        row_of(backend, prompts[2], tokens[1], tokens[2], scale=0.6),
    ]
    sample, step = torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([1.0, 500.0, 998.0])
    slots = [[made.place(row) for row in rows] for made in (backend, reference)]
    ours, theirs = (
        made.predict_noise(taken, sample, step, 4)
        for made, taken in zip((backend, reference), slots, strict=True)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    off = (backend.decode_latents(latents).int() - reference.decode_latents(latents).int()).abs()
    assert off.max() <= 1
    for made, taken in zip((backend, reference), slots, strict=True):
        for slot in taken:
            made.release(slot)
    with pytest.raises(SlotError):
        backend.release(slots[0][0])


def test_equal_pictures_are_encoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = compiled("onnxruntime", root)
    runs: list[str] = []
    run = backend._graphs.run

    def counting(graph: str, inputs: dict[str, torch.Tensor], **options: bool) -> dict[str, torch.Tensor]:
        runs.append(graph)
        return run(graph, inputs, **options)

    monkeypatch.setattr(backend._graphs, "run", counting)
    pixels = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
    pixels[0] = 7
    tokens = backend.encode_images(pixels)
    assert runs.count("image_encoder") == 2
    assert torch.equal(tokens[1], tokens[3]) and not torch.equal(tokens[0], tokens[1])


def test_a_model_without_an_adapter_takes_no_reference(tmp_path: Path) -> None:
    plain = exported(build_tiny_model(tmp_path / "model", TinySettings(adapters=())))
    backend = CompiledBackend(plain, make_runtime("onnxruntime"), CompiledSettings(buckets=(1,)))
    (prompt,) = backend.encode_prompts(["a hat"])
    assert backend.unconditional_tokens == {}
    with pytest.raises(ValueError, match="no adapter"):
        backend.encode_images(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    stray = PlacedReference(adapter="base", tokens=torch.zeros(4, 32), scales=(1.0,) * backend.facts.layers)
    with pytest.raises(ValueError, match="no adapter"):
        backend.place(RowConditioning(prompt=prompt, references=(stray,)))
    slot = backend.place(RowConditioning(prompt=prompt))
    assert backend.predict_noise([slot], torch.zeros(1, 4, 8, 8), torch.tensor([1.0]), 1).isfinite().all()


@pytest.mark.parametrize(
    "bad", [{"buckets": ()}, {"buckets": (0, 1)}, {"capacity": 3}, {"max_references": 0}]
)
def test_settings_that_cannot_hold_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|less than"):
        CompiledSettings(**bad)  # type: ignore[arg-type]


def test_what_the_registry_refuses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownBackendError, match="float32 or bfloat16 or int8, not float16"):
        create_backend("openvino", root, dtype="float16")
    with pytest.raises(UnknownBackendError, match="onnxruntime backend runs a tick in one lane, not in 2"):
        create_backend("onnxruntime", root, lanes=2)
    with pytest.raises(UnknownBackendError, match="float32, not bfloat16"):
        create_backend("onnxruntime", root, dtype="bfloat16")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnknownBackendError, match="needs the package onnxruntime"):
        create_backend("onnxruntime", root)


def test_the_cache_is_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "limner"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for none in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert default_cache_dir() == tmp_path / "home" / ".cache" / "limner"


def test_the_type_that_is_left_to_the_backend() -> None:
    assert (
        BackendOptions(dtype="auto").dtype_of("openvino", ("float32", "bfloat16"), best="bfloat16")
        == "bfloat16"
    )
    assert BackendOptions(dtype="float32").dtype_of("openvino", ("float32",), best="bfloat16") == "float32"
    assert BackendOptions(dtype="auto").dtype_of("torch", ("float32",)) == "float32"
    assert best_dtype() in ("float32", "bfloat16")
