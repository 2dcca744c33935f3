"""What every peer's server is told on its command line."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.dtypes import DTYPES
from loadtests.peers.pipelines.batched import PeerPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """Where the weights and references lie, what to compute in, and how to batch."""

    model: Path
    references: Path
    port: int
    threads: int
    dtype: str | None
    max_batch: int
    batch_seconds: float
    workers: int
    compile: bool

    def pipeline(self) -> PeerPipeline:
        """Load diffusers' pipeline, compile it where that is asked for, and give torch its threads.

        Raises ``ValueError`` for int8 without compilation.
        """
        import torch

        torch.set_num_threads(self.threads)
        if self.compile:
            from loadtests.peers.pipelines.inductor import InductorPipeline

            return InductorPipeline(
                self.model, self.references, dtype=self.dtype or "float32", max_batch=self.max_batch
            )
        if self.dtype == "int8":
            raise ValueError("--dtype int8 needs --compile")
        return PeerPipeline(self.model, self.references, dtype=self.dtype or "float32")


def parse_settings(description: str | None) -> ServingSettings:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--batch-seconds", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=1, help="of LitServe, each with --threads of its own")
    parser.add_argument("--compile", action="store_true", help="UNet and decoder by torch.compile")
    return ServingSettings(**vars(parser.parse_args()))
