"""The pipeline with its UNet and its VAE's decoder run by something else than torch's eager mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from loadtests.peers.ask import Ask
from loadtests.peers.pipelines.batched import PeerPipeline

Inputs = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]


class AdaptedUnet(torch.nn.Module):
    """The UNet with what a request may choose as inputs: the timestep and the adapter's scale too."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        image: torch.Tensor,
        scale: torch.Tensor,
    ) -> torch.Tensor:
        """Return the noise, shaped like `sample` ``[R, C, H, W]``; `timestep` is ``[1]``, `scale` a scalar."""
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [_Scale(scale)]
        # The class's own: the instance's is replaced by `LoweredPipeline`.
        noise: torch.Tensor = type(self.unet).forward(
            self.unet,
            sample,
            timestep,
            encoder_hidden_states=text,
            added_cond_kwargs={"image_embeds": [image]},
            return_dict=False,
        )[0]
        return noise


class Decoder(torch.nn.Module):
    """The VAE's decoder, latents to pictures."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return ``[B, 3, 8 H, 8 W]`` of ``[B, C, H, W]``."""
        picture: torch.Tensor = type(self.vae).decode(self.vae, latents, return_dict=False)[0]
        return picture


class _Scale:
    """A scale that is an input. diffusers' processor asks whether it is 0, which no exporter can put into a graph."""

    def __init__(self, value: torch.Tensor) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def __mul__(self, states: torch.Tensor) -> torch.Tensor:
        return self._value * states


class LoweredPipeline(PeerPipeline):
    """Calls what `lower` was given; before that, torch's eager mode through the same modules."""

    def __init__(self, model: Path, references: Path, *, dtype: str = "float32") -> None:
        super().__init__(model, references, dtype=dtype)
        self._scale = torch.ones(())
        unet, vae = self.pipe.unet, self.pipe.vae
        self.unet, self.decoder = AdaptedUnet(unet).eval(), Decoder(vae).eval()
        self._run_unet: Run = self.unet
        self._run_decoder: Run = self.decoder

        def forward(
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            *,
            added_cond_kwargs: dict[str, list[torch.Tensor]],
            **_: Any,
        ) -> tuple[torch.Tensor]:
            (image,) = added_cond_kwargs["image_embeds"]
            step = timestep.reshape(1).float()
            return (self._run_unet(sample, step, encoder_hidden_states, image, self._scale),)

        def decode(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            return (self._run_decoder(latents),)

        unet.forward = forward
        vae.decode = decode

    def lower(self, unet: Run, decoder: Run) -> None:
        """Call these from now on; they take what `AdaptedUnet` and `Decoder` take."""
        self._run_unet, self._run_decoder = unet, decoder

    def set_scale(self, scale: float) -> None:
        """Set the input that the next calls of the UNet get."""
        self._scale = torch.tensor(scale)

    @property
    def people(self) -> list[str]:
        """Names of the references, in alphabetical order."""
        return list(self._embeddings)

    def record(self, batches: Iterable[Sequence[Ask]]) -> tuple[list[Inputs], list[Inputs]]:
        """Return what UNet and decoder are called with while `batches` are drawn."""
        calls: tuple[list[Inputs], list[Inputs]] = ([], [])
        before = self._run_unet, self._run_decoder

        def recording(run: Run, into: list[Inputs]) -> Run:
            def call(*inputs: torch.Tensor) -> torch.Tensor:
                into.append(tuple(tensor.clone() for tensor in inputs))
                return run(*inputs)

            return call

        self.lower(*(recording(run, into) for run, into in zip(before, calls, strict=True)))
        for batch in batches:
            self.generate(batch)
        self.lower(*before)
        return calls
