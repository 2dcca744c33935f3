"""Every rule that a request is held to. None of them decodes a picture or costs the engine anything."""

from __future__ import annotations

from collections.abc import Callable

from engine.protocol.messages import Ready
from server.api.checks import Findings, known
from server.api.reference_checks import check_adapter, check_layers, check_references
from server.config.options import LimitOptions
from server.imaging.encode import DEFAULT_QUALITY
from server.imaging.formats import PictureFormat
from server.portraits.portrait import SEED_COUNT, Portrait
from server.portraits.request import PortraitRequest, Priority, Sampler

MAX_KEY_CHARACTERS = 128
MAX_PREVIEW_INTERVAL = 1000


def check_portrait(
    request: PortraitRequest | None,
    limits: LimitOptions,
    ready: Ready,
    draw_seed: Callable[[], int],
    *,
    idempotency_key: str = "",
    preview_interval: int = 0,
) -> Portrait:
    """Return the portrait with every default filled in; ``ready`` tells of the model that it names.

    Raises ``InvalidFieldsError`` with all violations at once.
    """
    findings = Findings()
    check_idempotency_key(findings, idempotency_key)
    findings.number("preview_interval", preview_interval, 0, MAX_PREVIEW_INTERVAL, "steps")
    if request is None:
        findings.add("portrait", "is missing", "the limit is exactly one")
        findings.raise_any()
        raise AssertionError
    _check_texts(findings, request, limits)
    references = check_references(findings, request, limits, ready)
    adapter = check_adapter(findings, "portrait.adapter", request.adapter, ready)
    layers = check_layers(findings, request, ready)
    _check_numbers(findings, request, limits)
    sampler, steps = _check_sampler(findings, request, limits, ready)
    width, height = _check_size(findings, request, ready)
    picture_format = known(findings, "portrait.format", request.format, PictureFormat, PictureFormat.PNG)
    priority = known(findings, "portrait.priority", request.priority, Priority, Priority.INTERACTIVE)
    findings.raise_any()
    return Portrait(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        references=references,
        reference_layers=layers,
        adapter=adapter if references else "",
        ip_adapter_scale=_default(request.ip_adapter_scale, 1.0) if references else 0.0,
        guidance_scale=_default(request.guidance_scale, ready.model.default_guidance_scale),
        guidance_rescale=_default(request.guidance_rescale, 0.0),
        guidance_start=_default(request.guidance_start, 0.0),
        guidance_end=_default(request.guidance_end, 1.0),
        steps=steps,
        sampler=sampler,
        width=width,
        height=height,
        image_count=request.image_count or 1,
        seed=draw_seed() if request.seed is None else request.seed,
        format=picture_format,
        quality=request.quality or DEFAULT_QUALITY,
        priority=priority,
        deterministic=request.deterministic,
        model=ready.model.name,
    )


def check_idempotency_key(findings: Findings, key: str) -> None:
    """Check ``idempotency_key``: at most 128 printable ASCII characters."""
    limit = f"the limit is {MAX_KEY_CHARACTERS} printable ASCII characters"
    if len(key) > MAX_KEY_CHARACTERS:
        findings.add("idempotency_key", f"has {len(key)} characters", limit)
    if not (key.isascii() and key.isprintable()):
        findings.add("idempotency_key", "has characters that are not printable ASCII", limit)


def _check_texts(findings: Findings, request: PortraitRequest, limits: LimitOptions) -> None:
    if not request.prompt.strip():
        problem = "is blank" if request.prompt else "is empty"
        findings.add(
            "portrait.prompt", problem, f"the limit is 1 to {limits.max_prompt_characters} characters"
        )
    findings.text("portrait.prompt", request.prompt, limits.max_prompt_characters)
    findings.text("portrait.negative_prompt", request.negative_prompt, limits.max_prompt_characters)


def _check_numbers(findings: Findings, request: PortraitRequest, limits: LimitOptions) -> None:
    for name, value, high in (
        ("ip_adapter_scale", request.ip_adapter_scale, limits.max_ip_adapter_scale),
        ("guidance_scale", request.guidance_scale, limits.max_guidance_scale),
        ("guidance_rescale", request.guidance_rescale, 1),
        ("guidance_start", request.guidance_start, 1),
        ("guidance_end", request.guidance_end, 1),
    ):
        if value is not None:
            findings.number(f"portrait.{name}", value, 0, high)
    start, end = _default(request.guidance_start, 0.0), _default(request.guidance_end, 1.0)
    if 0 <= end < start <= 1:
        findings.add("portrait.guidance_end", f"is {end:g}", f"the limit is guidance_start ({start:g}) to 1")
    findings.number("portrait.image_count", request.image_count, 0, limits.max_images, "images (0 is 1)")
    findings.number("portrait.quality", request.quality, 0, 100, f"(0 is {DEFAULT_QUALITY})")
    if request.seed is not None and not 0 <= request.seed < SEED_COUNT:
        findings.add("portrait.seed", f"is {request.seed}", "the limit is 0 to 2^63 - 1")


def _check_sampler(
    findings: Findings, request: PortraitRequest, limits: LimitOptions, ready: Ready
) -> tuple[Sampler, int]:
    default = Sampler(ready.model.default_sampler)
    sampler = known(findings, "portrait.sampler", request.sampler, Sampler, default)
    offered = {info.name: info for info in ready.samplers}
    if sampler.value not in offered:
        names = ", ".join(offered)
        findings.add(
            "portrait.sampler", f"is {sampler}, which the model does not take", f"the limit is {names}"
        )
        return sampler, 0
    info = offered[sampler.value]
    most = min(info.max_steps, limits.max_steps)
    steps = (
        request.steps
        if request.steps is not None
        else max(min(ready.model.default_steps, most), info.min_steps)
    )
    findings.number("portrait.steps", steps, info.min_steps, most, f"steps of {sampler}")
    return sampler, steps


def _check_size(findings: Findings, request: PortraitRequest, ready: Ready) -> tuple[int, int]:
    model = ready.model
    width, height = request.width or model.default_width, request.height or model.default_height
    for field, value in (("portrait.width", width), ("portrait.height", height)):
        findings.size(field, value, multiple=model.size_multiple, low=model.min_size, high=model.max_size)
    return width, height


def _default(value: float | None, default: float) -> float:
    return default if value is None else value
