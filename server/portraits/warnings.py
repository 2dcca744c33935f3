"""What may spoil a portrait, told with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.protocol.messages import Finished
from server.portraits.news import PortraitWarning, WarningCode
from server.portraits.portrait import Portrait
from server.references.record import ReferenceRecord

GUIDANCE_HIGH_ABOVE = 12.0
"""Stable Diffusion's pictures tend to be overcooked above this."""

QUOTED_CHARACTERS = 200
"""So much of what was cut is quoted."""


def portrait_warnings(
    portrait: Portrait, finished: Finished, records: Sequence[ReferenceRecord]
) -> Iterator[PortraitWarning]:
    """Yield what there is to warn of: the wording first, then the settings, then the references."""
    yield from _cut("portrait.prompt", finished.prompt_dropped)
    yield from _cut("portrait.negative_prompt", finished.negative_prompt_dropped)
    if portrait.guidance_scale > GUIDANCE_HIGH_ABOVE:
        yield PortraitWarning(
            code=WarningCode.GUIDANCE_HIGH,
            field="portrait.guidance_scale",
            message=f"guidance_scale is {portrait.guidance_scale:g}; pictures tend to be brittle and overcooked",
            action=f"try {GUIDANCE_HIGH_ABOVE:g} or less, or a guidance_rescale of 0.7",
        )
    if portrait.negative_prompt and portrait.guidance_scale <= 1:
        yield PortraitWarning(
            code=WarningCode.NEGATIVE_PROMPT_UNUSED,
            field="portrait.negative_prompt",
            message="a negative prompt acts only with guidance_scale above 1",
            action="raise guidance_scale, or leave the negative prompt out",
        )
    if portrait.has_reference and portrait.ip_adapter_scale == 0:
        yield PortraitWarning(
            code=WarningCode.REFERENCE_UNUSED,
            field="portrait.ip_adapter_scale",
            message="the reference has no effect at an ip_adapter_scale of 0",
            action="raise ip_adapter_scale, or leave the reference out",
        )
    for reference, record in zip(portrait.references, records, strict=True):
        if reference.weight == 0:
            yield PortraitWarning(
                code=WarningCode.REFERENCE_UNUSED,
                field=reference.weight_field,
                message="the reference adds nothing at a weight of 0"
                + ("" if portrait.regions else ", but takes attention from the others"),
                action="raise its weight, or leave it out",
            )
        for finding in record.warnings:
            yield PortraitWarning(
                code=WarningCode(finding.code.value),
                field=reference.field,
                message=finding.message,
                action=finding.action,
            )


def _cut(field: str, dropped: str) -> Iterator[PortraitWarning]:
    if dropped:
        shown = dropped if len(dropped) <= QUOTED_CHARACTERS else f"{dropped[:QUOTED_CHARACTERS]}..."
        yield PortraitWarning(
            code=WarningCode.PROMPT_TRUNCATED,
            field=field,
            message=f"longer than the text encoder's window; cut off: {shown!r}",
            action="shorten it, and put what matters first",
        )
