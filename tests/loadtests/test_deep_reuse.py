"""Deep features that are reused between steps: both parts are the UNet, and steps are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_runtime import OpenVINOSettings
from engine.backends.compiled.runtime import CompiledGraph
from loadtests.bench.reusing import Reuse, ReusingRuntime, give_deep, take_deep
from tests.compiled import exported
from tests.compiled.graphs import EXACT, ROWS, given, kinds, run, unet
from tests.tinymodels import build_tiny_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def outputs(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    compiled = shared_core().compile_model(model, "CPU", EXACT)
    found = compiled(inputs)
    return {name: found[port].copy() for port in compiled.outputs for name in port.names}


@pytest.mark.parametrize("shallow", [1, 2])
def test_the_deep_features_and_what_is_above_them_are_the_unet(root: Path, shallow: int) -> None:
    inputs = given(unet(root))
    whole = unet(root)
    give_deep(whole, shallow)
    part = take_deep(unet(root), shallow)
    assert kinds(part)["Convolution"] < kinds(whole)["Convolution"] / 2
    found = outputs(whole, inputs)
    read = {name for port in part.inputs for name in port.names}
    above = outputs(part, {name: array for name, array in (inputs | found).items() if name in read})
    np.testing.assert_allclose(found["noise"], run(unet(root), inputs), atol=1e-5)
    np.testing.assert_allclose(above["noise"], found["noise"], atol=1e-5)


class Steps:
    """A UNet on a runtime that reuses, and its steps on the same latents at other times."""

    def __init__(self, root: Path) -> None:
        self.runtime = ReusingRuntime(OpenVINOSettings(threads=1))
        self._inputs = {name: torch.from_numpy(array) for name, array in given(unet(root)).items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in self._inputs.items()}
        self._graph: CompiledGraph = self.runtime.compile(exported(root), "unet", shapes)

    def step(self, timestep: float | torch.Tensor) -> torch.Tensor:
        """Predict, with all rows at one timestep, or each at its own."""
        timesteps = torch.as_tensor(timestep).expand(ROWS)
        return self._graph({**self._inputs, "timestep": timesteps})["noise"]

    def exact(self, timestep: float) -> torch.Tensor:
        """Predict with everything computed."""
        reuse, self.runtime.reuse = self.runtime.reuse, Reuse()
        found = self.step(timestep)
        self.runtime.reuse = reuse
        return found


def test_every_third_step_computes_everything(root: Path) -> None:
    steps = Steps(root)
    times = (900.0, 800.0, 700.0, 600.0)
    exact = [steps.exact(time) for time in times]
    steps.runtime.reuse = Reuse(every=3)
    found = [steps.step(time) for time in times]
    same = [torch.allclose(mine, other, atol=1e-5) for mine, other in zip(found, exact, strict=True)]
    assert same == [True, False, False, True]


def test_another_batch_begins_with_everything(root: Path) -> None:
    steps = Steps(root)
    first, second = steps.exact(900.0), steps.exact(800.0)
    steps.runtime.reuse = Reuse(every=5)
    for _ in range(2):
        assert torch.allclose(steps.step(900.0), first, atol=1e-5)
        assert not torch.allclose(steps.step(800.0), second, atol=1e-5)


def test_rows_of_several_steps_are_refused(root: Path) -> None:
    steps = Steps(root)
    steps.runtime.reuse = Reuse(every=2)
    steps.step(900.0)
    with pytest.raises(ValueError, match="several steps"):
        steps.step(torch.linspace(800.0, 700.0, ROWS))
