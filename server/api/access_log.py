"""The access log: one line a call, with every timing and without what it is a picture of."""

from __future__ import annotations

from typing import Any

from structlog.typing import FilteringBoundLogger

from server.api.calls import Call, current_call
from server.portraits.news import Completed
from server.portraits.portrait import Portrait


class AccessLog:
    """Writes a line for each call that ended. Prompts only when ``prompts`` is set."""

    def __init__(self, log: FilteringBoundLogger, *, prompts: bool = False) -> None:
        self._log = log
        self._prompts = prompts

    def asked(self, portrait: Portrait, task_id: str) -> None:
        """Note what the present call asks for."""
        current_call().note(
            task_id=task_id,
            model=portrait.model,
            sampler=portrait.sampler.value,
            steps=portrait.steps,
            guidance_scale=portrait.guidance_scale,
            ip_adapter_scale=portrait.ip_adapter_scale,
            size=f"{portrait.width}x{portrait.height}",
            images=portrait.image_count,
            seed=portrait.seed,
            format=portrait.format.value.lower(),
            priority=portrait.priority.name.lower(),
            prompt_characters=len(portrait.prompt),
            references=len(portrait.references),
            adapter=portrait.adapter,
            reference_layers=portrait.reference_layers.value if portrait.has_reference else "",
        )
        if self._prompts:
            current_call().note(prompt=portrait.prompt, negative_prompt=portrait.negative_prompt)

    def completed(self, completed: Completed) -> None:
        """Note how the present call's portrait was made."""
        timings = completed.timings
        current_call().note(
            cache="+".join(use.outcome.value for use in completed.references) or "none",
            decode_input_seconds=_round(timings.decode_input),
            reference_seconds=_round(timings.reference),
            queue_seconds=_round(timings.queue),
            encode_prompt_seconds=_round(timings.encode_prompt),
            denoise_seconds=_round(timings.denoise),
            decode_latents_seconds=_round(timings.decode_latents),
            encode_output_seconds=_round(timings.encode_output),
            mean_batch_rows=_round(timings.mean_batch_rows),
            warnings=[warning.code.value for warning in completed.warnings],
        )

    def ended(self, call: Call) -> None:
        """Write the line."""
        fields: dict[str, Any] = {
            "method": call.method,
            "code": call.code,
            "seconds": _round(call.seconds),
            "request_id": call.request_id,
            "tenant": call.tenant_as_given[:64],
            "peer": call.peer,
            "user_agent": call.user_agent,
        }
        if call.reason:
            fields["reason"] = call.reason
        self._log.info("call", **fields, **call.fields)


def _round(value: float) -> float:
    return round(value, 6)
