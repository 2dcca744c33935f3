"""Counted operations, on layers whose operations are known."""

from __future__ import annotations

import torch

from loadtests.bench.arithmetic import Flops, Rates, count_flops, measure_rates
from loadtests.bench.ceiling import Placed


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.linear = torch.nn.Linear(5, 7)
        self.once = torch.nn.Linear(5, 11)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.convolution(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.linear(rows), self.once(rows)], -1)


def test_operations_are_counted_by_kind_and_those_done_once_apart() -> None:
    layers = Layers()
    counted, once = count_flops(lambda: layers(torch.zeros(2, 3, 4, 4)), once=(".once",))
    assert counted == Flops(convolution=2 * 2 * 16 * 3 * 5 * 9, matrix=2 * 2 * 16 * 5 * 7)
    assert once == Flops(convolution=0, matrix=2 * 2 * 16 * 5 * 11)
    total = counted.times(3) + once
    assert total.matrix == 3 * counted.matrix + once.matrix
    assert Flops(convolution=6.0, matrix=4.0).seconds(Rates(convolution=3.0, matrix=2.0)) == 4.0


def test_rates_are_measured() -> None:
    rates = measure_rates("float32", seconds=0.01)
    assert rates.convolution > 0 and rates.matrix > 0


def test_the_service_stands_between_loop_and_ceiling() -> None:
    placed = Placed(ceiling=[10.0, 20.0], loop=[5.0, 8.0], service=[4.0, 8.0], rows=[8.0, 8.0])
    assert placed.lines()[-1] == "| service | 6.00 | 0.40 (0.40 to 0.40) | 0.90 (0.80 to 1.00) |"
