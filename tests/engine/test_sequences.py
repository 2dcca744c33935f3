"""After any sequence of messages: every job has one end, and nothing is left behind."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.protocol.messages import (
    Cancel,
    EncodeReference,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    ReferenceEncoded,
    ReferenceFailed,
)
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import TOKENS, WIDE_TOKENS
from tests.engine.test_encoding import picture

PROMPTS = ("a", "b", "ticknan", "tickboom", "encnan", "encboom", "placeboom")


class EngineSequences(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            config=EngineConfig(max_waiting=12, prompt_cache_bytes=2000, aging_seconds=0.2),
            plan=DecodePlan(batch=2, patience_ticks=1),
            capacity=10,
        )
        self.asked: dict[str, int] = {}
        self.pictures = 0

    @rule(
        prompt=st.sampled_from(PROMPTS),
        sampler=st.sampled_from(("ddim", "euler_ancestral", "unipc", "lcm")),
        steps=st.integers(1, 6),
        guided=st.booleans(),
        images=st.integers(1, 4),
        priority=st.integers(0, 1),
        deadline=st.none() | st.floats(0.01, 0.3),
        deterministic=st.booleans(),
        references=st.integers(0, 4),
        adapter=st.sampled_from(("", "wide")),
        width=st.sampled_from((16, 24)),
    )
    def submit(
        self,
        prompt: str,
        sampler: str,
        steps: int,
        guided: bool,
        images: int,
        priority: int,
        deadline: float | None,
        deterministic: bool,
        references: int,
        adapter: str,
        width: int,
    ) -> None:
        name = f"job-{len(self.asked)}"
        self.asked[name] = images
        asked = job(
            name,
            prompt,
            sampler=sampler,
            steps=steps,
            guidance_scale=4.0 if guided else 1.0,
            seeds=tuple(range(images)),
            priority=priority,
            deadline=deadline,
            deterministic=deterministic,
            width=width,
            adapter=adapter,
            progress=True,
            preview_interval=2,
        )
        tokens = WIDE_TOKENS if adapter else TOKENS
        self.bench.tell(asked, reference(*[0.5] * references, tokens=tokens) if references else None)

    @rule(which=st.integers(0, 40))
    def cancel(self, which: int) -> None:
        self.bench.tell(Cancel(job_id=f"job-{which}"))

    @rule(value=st.sampled_from((1, 2, 66, 99)), adapter=st.sampled_from(("", "wide")))
    def encode_reference(self, value: int, adapter: str) -> None:
        self.bench.tell(EncodeReference(request_id=str(self.pictures), adapter=adapter), picture(value))
        self.pictures += 1

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        self.bench.turn(times)

    @rule(seconds=st.floats(0.01, 0.2))
    def wait(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @invariant()
    def slots_belong_to_jobs_in_flight(self) -> None:
        jobs = self.bench.loop._jobs._jobs.values()
        held = [slot for one in jobs for image in one.images for slot in image.slots]
        assert len(held) == len(set(held)) == self.bench.slots_held()

    def teardown(self) -> None:
        bench = self.bench
        bench.finish()
        assert bench.slots_held() == 0
        assert not bench.loop._jobs._images
        assert not len(bench.loop._delivery._decodes)
        ends = [m.job_id for m in (*bench.messages(Finished), *bench.messages(Failed))]
        assert sorted(ends) == sorted(self.asked)
        done = {m.job_id for m in bench.messages(Finished)}
        for name, images in self.asked.items():
            sent = [m.index for m in bench.messages(ImageReady) if m.job_id == name]
            assert len(sent) == len(set(sent)) <= images
            assert name not in done or len(sent) == images
        answers = [
            m.request_id for m in (*bench.messages(ReferenceEncoded), *bench.messages(ReferenceFailed))
        ]
        assert sorted(answers) == sorted(map(str, range(self.pictures)))
        blamed = {m.reason for m in bench.messages(Failed)}
        assert FailureReason.INVALID not in blamed


EngineSequences.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEngineSequences = EngineSequences.TestCase
