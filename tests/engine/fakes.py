"""A backend of plain arithmetic, a virtual clock and an inbox that tests fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from engine.backends.base import AdapterFacts, EncodedPrompt, LatentShape, ModelFacts, RowConditioning
from engine.backends.slots import SlotError, SlotsExhaustedError
from engine.loop.mailbox import Mail

SHAPE: LatentShape = (4, 2, 2)
TOKENS, WIDE_TOKENS, WIDTH = 2, 3, 8
LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
)
BUCKETS = (1, 2, 4, 8)
TICK_SECONDS = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024}
DECODE_SECONDS = {1: 0.004, 2: 0.006, 4: 0.010}

FACTS = ModelFacts(
    name="fake",
    family="sd1",
    weights_hash="0" * 64,
    adapters=(
        AdapterFacts(name="base", kind="base", tokens=TOKENS, weights_hash="0" * 64),
        AdapterFacts(name="wide", kind="plus", tokens=WIDE_TOKENS, weights_hash="1" * 64),
    ),
    layer_names=LAYERS,
    prediction_type="epsilon",
    latent_channels=4,
    latent_scale=8,
    default_height=16,
    default_width=16,
    size_multiple=8,
    min_size=8,
    max_size=64,
    prompt_tokens=4,
    reference_size=4,
    token_width=WIDTH,
    preprocessing="clip-pil-1 edge=4 crop=4 resample=bicubic",
    scheduler_config={"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
)


class BoomError(RuntimeError):
    """What a fake raises when it is told to."""


@dataclass
class VirtualClock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeBackend:
    """Words in a prompt poison it: "nan" in a row's prediction, "boom" an exception in its tick, and so on.

    ``broken`` makes every tick raise. ``calls`` logs what ran. Predictions depend on the row's own conditioning and
    latents alone.
    """

    clock: VirtualClock
    capacity: int = 16
    broken: bool = False
    facts: ModelFacts = FACTS
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    calls: list[tuple[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unconditional_tokens = {
            adapter.name: torch.full((adapter.tokens, WIDTH), -1.0) for adapter in self.facts.adapters
        }
        self.rows: dict[int, RowConditioning] = {}
        self._texts: list[str] = []

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        return BUCKETS

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        self.calls.append(("prompts", tuple(texts)))
        self.clock.now += 0.001
        if any("encboom" in text for text in texts):
            raise BoomError("text encoder")
        return [self._encode(text) for text in texts]

    def encode_images(self, pixels: torch.Tensor, adapter: str | None = None) -> torch.Tensor:
        chosen = self.facts.adapter(adapter or "")
        self.calls.append(("images", len(pixels)))
        self.clock.now += 0.002
        first = pixels[:, 0, 0, 0].float()
        if (first == 66).any():
            raise BoomError("image encoder")
        tokens = first[:, None, None].expand(-1, chosen.tokens, WIDTH).clone()
        tokens[first == 99] = torch.nan
        return tokens / 255

    def place(self, row: RowConditioning) -> int:
        if "placeboom" in self._text(row):
            raise BoomError("place")
        free = next((slot for slot in range(self.capacity) if slot not in self.rows), None)
        if free is None:
            raise SlotsExhaustedError(f"all {self.capacity} slots are taken")
        self.rows[free] = row
        return free

    def release(self, slot: int) -> None:
        if slot not in self.rows:
            raise SlotError(f"slot {slot} is not taken")
        del self.rows[slot]

    def predict_noise(
        self,
        slots: Sequence[int],
        sample: torch.Tensor,
        timestep: torch.Tensor,
        bucket: int,
        images: Sequence[int] | None = None,
    ) -> torch.Tensor:
        assert len(slots) == len(sample) == len(timestep) <= bucket
        assert len(set(slots)) == len(slots)
        if images is not None:
            first = [images.index(image) for image in images]
            assert torch.equal(sample, sample[first]), "the rows of an image have its latents"
            assert torch.equal(timestep, timestep[first])
        rows = [self.rows[slot] for slot in slots]
        texts = [self._text(row) for row in rows]
        self.calls.append(("tick", (bucket, tuple(texts))))
        self.clock.now += TICK_SECONDS[bucket]
        if self.broken or any("tickboom" in text for text in texts):
            raise BoomError("tick")
        shift = torch.stack([self._shift(row) for row in rows]).view(-1, 1, 1, 1)
        out = 0.3 * sample + shift + timestep.view(-1, 1, 1, 1) / 5000
        for index, text in enumerate(texts):
            if "ticknan" in text:
                out[index, 0, 0, 0] = torch.nan
        return out

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        self.calls.append(("decode", len(latents)))
        self.clock.now += DECODE_SECONDS.get(len(latents), 0.003 * len(latents))
        if (latents > 400).any():
            raise FloatingPointError("not finite")
        large = latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)
        return (large * 20 + 128).clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)

    def count(self, kind: str) -> int:
        return sum(call == kind for call, _ in self.calls)

    def ticks(self) -> list[tuple[int, tuple[str, ...]]]:
        return [what for call, what in self.calls if call == "tick"]  # type: ignore[misc]

    def _encode(self, text: str) -> EncodedPrompt:
        if text not in self._texts:
            self._texts.append(text)
        embedding = torch.zeros(4, WIDTH)
        embedding[0, 0] = sum(text.encode()) % 97 / 97
        embedding[3, 0] = self._texts.index(text)
        if "encnan" in text:
            embedding[1, 1] = torch.nan
        return EncodedPrompt(embedding=embedding, dropped="tail" if "long" in text else "")

    def _text(self, row: RowConditioning) -> str:
        return self._texts[int(row.prompt.embedding[3, 0])]

    def _shift(self, row: RowConditioning) -> torch.Tensor:
        references = [reference.scales[0] * reference.tokens.mean() for reference in row.references]
        return row.prompt.embedding[0, 0] * 0.1 + 0.05 * sum(references, torch.tensor(0.0))


class ListInbox:
    """An inbox that tests fill; waiting costs virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        self.mails: list[Mail] = []
        self.closed = False
        self._clock = clock
        self._listener: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> bool:
        return bool(self.mails)

    def tell(self, listener: Callable[[], None]) -> None:
        self._listener = listener

    def put(self, mail: Mail) -> None:
        self.mails.append(mail)
        self._listener()

    def drain(self, patience: float) -> list[Mail]:
        mails, self.mails = self.mails, []
        if not mails:
            self._clock.now += patience
        return mails
