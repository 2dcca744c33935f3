"""``python -m loadtests.bench.supplied_kv``: the UNet with K/V as inputs against the same UNet that computes them.

Both are exported from the shipped model and compiled by OpenVINO for the same buckets; calls take turns. The scale of
the adapter is 1, the only one that a graph with K/V inside can have; in f32 the results agree to the bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_runtime import compile_options
from engine.embedded import model_directory
from engine.export.graphfile import write_graph
from engine.export.graphs import graph_sources
from engine.export.trace import GraphSource
from engine.models.model import Model, load_model
from loadtests.ratios import ratios, show

Inputs = dict[str, torch.Tensor]


class KVInside(nn.Module):
    """A UNet that projects prompt and reference in every call, as all others do."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert model.adapter is not None
        self.unet = model.unet
        self.text = nn.Parameter(model.text_kv.weight, requires_grad=False)
        self.image = nn.Parameter(model.adapter.kv.weight, requires_grad=False)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        embedding: torch.Tensor,
        tokens: torch.Tensor,
        ip_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Project, and run the UNet."""
        linear = nn.functional.linear
        noise: torch.Tensor = self.unet(
            sample, timestep, linear(embedding, self.text), linear(tokens, self.image), ip_mask
        )
        return noise


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.supplied_kv", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    arguments = parser.parse_args()
    model = load_model(model_directory())
    supplied = next(graph_sources(model, None))
    inside = _inside(model, supplied)
    with tempfile.TemporaryDirectory() as folder:
        for source in (supplied, inside):
            write_graph(source, Path(folder), opset=21)
        print("| rows | K/V as inputs, ms a row | K/V inside, ms a row | ratio (least to most) | error |")
        print("|---|---|---|---|---|")
        for rows in arguments.rows:
            given = _inputs(model, rows)
            runs = [
                _compile(
                    Path(folder) / f"{source.name}.onnx",
                    {name: given[name] for name in source.inputs},
                    arguments,
                )
                for source in (supplied, inside)
            ]
            print(_compare(rows, runs, arguments.rounds), flush=True)


def _inside(model: Model, supplied: GraphSource) -> GraphSource:
    facts = model.facts
    renamed = {
        "kv_text": ("embedding", torch.zeros(2, facts.prompt_tokens, facts.token_width)),
        "kv_ip": ("tokens", torch.zeros(2, facts.reference_tokens, facts.token_width)),
    }
    return GraphSource(
        name="inside",
        module=KVInside(model),
        inputs=dict(renamed.get(name, (name, value)) for name, value in supplied.inputs.items()),
        outputs=supplied.outputs,
        axes={renamed.get(name, (name,))[0]: axes for name, axes in supplied.axes.items()},
    )


def _inputs(model: Model, rows: int) -> Inputs:
    facts = model.facts
    assert model.adapter is not None
    generator = torch.Generator().manual_seed(0)
    side = facts.default_height // facts.latent_scale
    embedding = torch.randn(rows, facts.prompt_tokens, facts.token_width, generator=generator)
    tokens = torch.randn(rows, facts.reference_tokens, facts.token_width, generator=generator)
    return {
        "sample": torch.randn(rows, facts.latent_channels, side, side, generator=generator),
        "timestep": torch.full((rows,), 500.0),
        "embedding": embedding,
        "tokens": tokens,
        "kv_text": model.text_kv.project(embedding),
        "kv_ip": model.adapter.kv.project(tokens),
        "ip_mask": torch.zeros(rows, facts.reference_tokens),
    }


def _compile(path: Path, inputs: Inputs, arguments: argparse.Namespace) -> Callable[[], Any]:
    import openvino

    core = shared_core()
    graph = core.read_model(path)
    graph.reshape({name: list(value.shape) for name, value in inputs.items()})
    options = compile_options(arguments.precision, threads=arguments.threads)
    request = core.compile_model(graph, "CPU", options).create_infer_request()
    for name, value in inputs.items():
        request.set_tensor(name, openvino.Tensor(value.numpy(), shared_memory=True))

    def run() -> Any:
        request.infer()
        return request.get_output_tensor(0).data

    return run


def _compare(rows: int, runs: list[Callable[[], Any]], rounds: int) -> str:
    outputs = [run().copy() for run in runs]
    error = float(abs(outputs[0] - outputs[1]).max() / abs(outputs[0]).max())
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            runs[which]()
            seconds[which].append(time.perf_counter() - began)
    each = [1000 * median(taken) / rows for taken in seconds]
    return f"| {rows} | {each[0]:.2f} | {each[1]:.2f} | {show(ratios(*seconds))} | {error:.1e} |"


if __name__ == "__main__":
    main()
