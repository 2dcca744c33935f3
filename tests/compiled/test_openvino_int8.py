"""Products in int8: which layers, how far off, and what is said where ranges are missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled import openvino_int8
from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_int8 import layers, quantise, seen, watch
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings, computes_int8
from engine.backends.compiled.openvino_trunk import share_trunk
from engine.backends.options import UnknownBackendError
from engine.backends.registry import create_backend
from engine.export.activations import (
    ACTIVATIONS,
    Range,
    read_activations,
    weights_of,
    write_activations,
)
from engine.export.digest import digest_file
from engine.export.directory import ExportDirectory
from engine.export.errors import NotCalibratedError
from engine.export.source import source_files
from tests.backends.rows import row_of
from tests.compiled import NEEDS_INT8, calibrated, compiled, exported
from tests.compiled.graphs import given, run, unet
from tests.tinymodels import build_tiny_model

CONV, LINEAR = "net.conv", "net.linear"


def named(values: np.ndarray[Any, Any], name: str) -> Any:
    constant = ops.constant(values.astype(np.float32))
    constant.set_friendly_name(f"{name}.weight")
    return constant


def network(channels: int = 32, *, turned: bool = True, outputs: int = 32, normal: bool = False) -> Any:
    """A convolution, and a linear layer over its pixels, which may be normalised first."""
    generator = np.random.default_rng(0)
    x = ops.parameter([2, channels, 6, 6], openvino.Type.f32)
    x.output(0).set_names({"x"})
    kernel = named(generator.standard_normal((32, channels, 3, 3)) / 10, CONV)
    convolved = ops.convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    pixels = ops.transpose(ops.reshape(convolved, [2, 32, 36], False), [0, 2, 1])
    if normal:
        pixels = ops.mvn(pixels, np.array([2]), True, 1e-5, "inside_sqrt")
    shape = (outputs, 32) if turned else (32, outputs)
    product = ops.matmul(pixels, named(generator.standard_normal(shape) / 6, LINEAR), False, turned)
    return openvino.Model([product], [x], "network")


def drawn(channels: int = 32, heavy: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    """Draw the network's input; its first channel is so many times as large as the others."""
    x = np.random.default_rng(1).standard_normal((2, channels, 6, 6)).astype(np.float32)
    x[:, 0] *= heavy
    return {"x": x}


def ranges_of(model: Any, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, Range]:
    names = watch(model)
    rows = range(len(next(iter(inputs.values()))))
    return seen(names, shared_core().compile_model(model, "CPU")(inputs), rows)


def error(model: Any, inputs: dict[str, np.ndarray[Any, Any]], exact: np.ndarray[Any, Any]) -> float:
    """Return the root mean square error over that of what is exact."""
    return float(np.sqrt(((run(model, inputs) - exact) ** 2).mean() / (exact**2).mean()))


def precisions(model: Any) -> Counter[tuple[str, str]]:
    """Count what the CPU plugin makes of a graph's products."""
    return kinds_of(shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))


def kinds_of(compiled: Any) -> Counter[tuple[str, str]]:
    """Count the products of a compiled graph by their kind and the type of their input."""
    kinds: Counter[tuple[str, str]] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        kind = op.get_rt_info()["layerType"].astype(str)
        if kind == "Convolution" or kind.startswith("FullyConnected"):
            kinds[kind.removesuffix("QuantizedLegacy"), op.input_value(0).get_element_type().to_string()] += 1
    return kinds


@pytest.mark.parametrize("shape", [{"turned": True}, {"turned": False}, {"normal": True}], ids=str)
def test_a_network_in_int8_is_near(shape: dict[str, bool]) -> None:
    """Also where a normalisation comes right before: OpenVINO would fuse the rounding into it."""
    inputs = drawn()
    exact = run(network(**shape), inputs)
    ranges = ranges_of(network(**shape), inputs)
    assert ranges.keys() == {CONV, LINEAR}
    np.testing.assert_array_equal(ranges[CONV].low, inputs["x"].min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(ranges[CONV].high, inputs["x"].max(axis=(0, 2, 3)))
    model = network(**shape)
    assert quantise(model, ranges) == 2
    assert 1e-4 < error(model, inputs, exact) < 0.02


@NEEDS_INT8
def test_what_was_marked_is_computed_in_integers() -> None:
    inputs = drawn()
    model = network()
    assert precisions(model) == {("Convolution", "f32"): 1, ("FullyConnected", "f32"): 1}
    quantise(model, ranges_of(network(), inputs))
    assert precisions(model) == {("Convolution", "u8"): 1, ("FullyConnected", "i8"): 1}


def test_a_channel_of_large_values_does_not_cost_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(heavy=100.0)
    exact = run(network(), inputs)
    ranges = ranges_of(network(), inputs)
    errors = {}
    for smoothing in (0.0, openvino_int8.SMOOTHING):
        monkeypatch.setattr(openvino_int8, "SMOOTHING", smoothing)
        model = network()
        quantise(model, ranges)
        errors[smoothing] = error(model, inputs, exact)
    assert errors[openvino_int8.SMOOTHING] < 0.5 * errors[0.0], errors


def test_what_lies_beyond_its_range_is_held_to_it() -> None:
    inputs = drawn()
    ranges = ranges_of(network(), inputs)
    model = network()
    quantise(model, ranges)
    beyond = run(model, {"x": 100 * inputs["x"]})
    assert np.isfinite(beyond).all()
    assert np.abs(beyond).max() < 10 * np.abs(run(network(), inputs)).max()


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_an_input_that_never_changes(value: float) -> None:
    inputs = {"x": np.full((2, 32, 6, 6), value, dtype=np.float32)}
    exact = run(network(), inputs)
    model = network()
    quantise(model, ranges_of(network(), inputs))
    np.testing.assert_allclose(run(model, inputs), exact, rtol=0, atol=0.02 * max(1.0, np.abs(exact).max()))


@pytest.mark.parametrize(("channels", "outputs", "left"), [(12, 32, CONV), (32, 4, LINEAR)])
def test_few_channels_stay_as_they_are(channels: int, outputs: int, left: str) -> None:
    assert left not in {layer.name for layer in layers(network(channels, outputs=outputs))}


@pytest.mark.parametrize(
    "ranges",
    [{}, {CONV: Range(np.zeros(7, np.float32), np.ones(7, np.float32))}],
    ids=["missing", "another number of channels"],
)
def test_a_layer_without_its_range_is_named(ranges: dict[str, Range]) -> None:
    with pytest.raises(KeyError, match=CONV):
        quantise(network(), ranges)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@NEEDS_INT8
def test_every_layer_of_a_unet_but_the_outermost_and_the_timesteps(root: Path) -> None:
    ranges = exported(root).activations()
    model = unet(root)
    weights = {
        op.input_value(1).get_node().get_friendly_name().removesuffix(".weight")
        for op in model.get_ops()
        if op.get_type_name() in ("Convolution", "MatMul")
        and op.input_value(1).get_node().get_type_name() == "Constant"
    }
    left = {name for name in weights if "time_emb" in name} | {"unet.conv_in", "unet.conv_out"}
    assert {layer.name for layer in layers(model)} == weights - left
    assert weights - left <= ranges.keys()


def test_a_unet_in_int8_is_near(root: Path) -> None:
    exact, model = unet(root), unet(root)
    inputs = given(exact)
    wanted = run(exact, inputs)
    assert quantise(model, ranges_of(unet(root), inputs)) > 10
    assert 1e-3 < error(model, inputs, wanted) < 0.1


@NEEDS_INT8
def test_rounded_weights_are_not_taken_for_rows(root: Path) -> None:
    """The tiny UNet's weights have 32 outputs, as many as a batch has rows."""
    model = unet(root, rows=32)
    quantise(model, exported(root).activations())
    assert share_trunk(model)


@NEEDS_INT8
def test_the_runtime_compiles_unet_and_decoder_in_int8_and_keeps_them_apart(
    root: Path, tmp_path: Path
) -> None:
    export = exported(root)
    shapes = {
        "unet": {port.any_name: tuple(port.shape) for port in unet(root).inputs},
        "vae_decoder": {"latents": (1, 4, 8, 8)},
        "text_kv": {"embedding": (1, 4, 32)},
    }
    compiled = {}
    for int8 in (False, True):
        runtime = OpenVINORuntime(OpenVINOSettings(int8=int8, threads=1, cache=tmp_path))
        found = {name: products(runtime.compile(export, name, shapes[name])) for name in shapes}
        assert {name: ("u8" in kinds or "i8" in kinds) for name, kinds in found.items()} == {
            "unet": int8,
            "vae_decoder": int8,
            "text_kv": False,
        }
        compiled[int8] = runtime.compiled
    assert compiled == {False: 3, True: 2}, "what stays in float32 is one file for both"
    dynamic = {name: (None, *shape[1:]) for name, shape in shapes["unet"].items()}
    runtime = OpenVINORuntime(OpenVINOSettings(int8=True, threads=1))
    assert "i8" in products(runtime.compile(export, "unet", dynamic))


def products(graph: Any) -> set[str]:
    """Return the types that a compiled graph's products read."""
    return {kind for _, kind in kinds_of(graph._lanes[0].request.get_compiled_model())}


@NEEDS_INT8
def test_a_backend_in_int8_predicts_nearly_the_same(root: Path) -> None:
    """Through all that is done to a graph, at the model's size and at another one, and in its decoder."""
    sample = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[torch.Tensor]] = {}
    for dtype in ("float32", "int8"):
        backend = compiled("openvino", root, dtype=dtype, buckets=(1, 2))
        slot = backend.place(row_of(backend, backend.encode_prompts(["a portrait of a woman"])[0]))
        found[dtype] = [
            backend.predict_noise([slot], sample[..., :width], torch.tensor([500.0]), 1) for width in (8, 12)
        ]
        found[dtype].append(backend.decode_latents(sample[..., :8]).float())
    for exact, near in zip(found["float32"], found["int8"], strict=True):
        off = float(((near - exact).square().mean() / exact.square().mean()).sqrt())
        assert 1e-3 < off < 0.3, off


@NEEDS_INT8
def test_a_model_that_was_not_calibrated(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    with pytest.raises(NotCalibratedError, match="limner-engine calibrate") as caught:
        create_backend("openvino", model, dtype="int8", cache=tmp_path / "cache")
    assert caught.value.expected == ACTIVATIONS
    assert not (tmp_path / "cache").exists(), "before it is exported"
    with pytest.raises(NotCalibratedError, match="and export it again"):
        create_backend("openvino", exported(model).root, dtype="int8")


def test_ranges_of_other_layers(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    other = Range(np.zeros(1, np.float32), np.ones(1, np.float32))
    source = [digest_file(model, path) for path in source_files(model)]
    write_activations(model / ACTIVATIONS, {"unet.other": other}, weights_of(source), {})
    shapes = {port.any_name: tuple(port.shape) for port in unet(model).inputs}
    runtime = OpenVINORuntime(OpenVINOSettings(int8=True, threads=1))
    with pytest.raises(NotCalibratedError, match=r"of another model.*range of each input of unet\."):
        runtime.compile(exported(model), "unet", shapes)


def test_a_cpu_without_vnni_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_vnni": False})
    with pytest.raises(UnknownBackendError, match="VNNI"):
        create_backend("openvino", root, dtype="int8", cache=tmp_path)


@pytest.mark.parametrize("known", ["avx512_vnni", "avx_vnni"])
def test_either_vnni_will_do(monkeypatch: pytest.MonkeyPatch, known: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {known: True})
    assert computes_int8()


@NEEDS_INT8
def test_the_export_carries_the_ranges(root: Path) -> None:
    export = ExportDirectory.open(exported(root).root)
    written = read_activations(root / ACTIVATIONS, weights_of(export.manifest.source))
    found = export.activations()
    assert found.keys() == written.keys()
    for name, known in written.items():
        np.testing.assert_array_equal(found[name].low, known.low)
        np.testing.assert_array_equal(found[name].high, known.high)
