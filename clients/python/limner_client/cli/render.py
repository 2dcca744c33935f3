"""Results as text for people and as JSON for scripts."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from limner_client.catalog import Health, Info, Limits
from limner_client.choices import ReferenceLayers
from limner_client.errors import InvalidRequest, LimnerError
from limner_client.portrait import Parameters, Portrait, PortraitWarning
from limner_client.reference import Reference


def to_json(value: Any) -> str:
    """Write one line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=_default)


def _default(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def portrait_json(portrait: Portrait, paths: list[Path]) -> dict[str, Any]:
    """Give a portrait with the files in place of the bytes."""
    content = asdict(portrait)
    for image, path in zip(content["images"], paths, strict=True):
        image["size_bytes"] = len(image.pop("data"))
        image["path"] = str(path)
    return content


def portrait_text(portrait: Portrait, paths: list[Path]) -> str:
    """Give the files, the seed, the cache outcome, the timings and the warnings."""
    timings = portrait.timings
    stages = (
        ("reference", timings.reference_seconds),
        ("queue", timings.queue_seconds),
        ("prompt", timings.encode_prompt_seconds),
        ("denoise", timings.denoise_seconds),
        ("decode", timings.decode_latents_seconds),
        ("encode", timings.encode_output_seconds),
    )
    spent = ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in stages)
    lines = [
        *(
            f"{path}  {image.width}x{image.height}  seed {image.seed}"
            for image, path in zip(portrait.images, paths, strict=True)
        ),
        f"model      {_parameters(portrait.parameters)}",
        *_reference_lines(portrait),
        f"time       {timings.total_seconds:.3f} s; in ms: {spent}",
        f"batch      {timings.mean_batch_rows:.1f} rows on average",
        f"task       {portrait.task_id}",
        *warning_lines(portrait.warnings),
    ]
    return "\n".join(lines)


def _parameters(used: Parameters) -> str:
    through = f", adapter {used.adapter}" if used.adapter else ""
    if used.reference_layers not in (None, ReferenceLayers.ALL):
        through += f", layers {used.reference_layers}"
    return (
        f"{used.model}, {used.sampler}, {used.steps} steps, guidance {used.guidance_scale:g}, "
        f"ip-adapter scale {used.ip_adapter_scale:g}{through}"
    )


def _reference_lines(portrait: Portrait) -> list[str]:
    uploaded = ", uploaded" if portrait.upload_outcome else ""
    if len(portrait.references) > 1:
        return [
            f"reference  {use.digest[:12]}, weight {use.weight:g}, cache {use.cache_outcome}{uploaded}"
            for use in portrait.references
        ]
    use = portrait.reference
    return [
        f"reference  {use.digest[:12]}, cache {portrait.cache_outcome}{uploaded}"
        if use
        else "reference  none"
    ]


def reference_text(reference: Reference) -> str:
    """Give the digest alone on the first line, then what is known of the picture."""
    outcome = f", cache {reference.cache_outcome}" if reference.cache_outcome else ""
    size = f"{reference.width}x{reference.height}, {reference.size_bytes} bytes"
    picture = f"{reference.format} {size}{outcome}"
    return "\n".join([reference.digest, f"picture    {picture}", *warning_lines(reference.warnings)])


def warning_lines(warnings: tuple[PortraitWarning, ...]) -> list[str]:
    """Give each warning with what to do about it."""
    return [f"warning    {warning.message} {warning.action}".rstrip() for warning in warnings]


def info_text(info: Info, limits: Limits) -> str:
    """Give the models, the default first, and the limits."""
    lines: list[str] = []
    for position, model in enumerate(info.models):
        lines.append(f"model {model.name} ({model.family}){', the default' if position == 0 else ''}")
        rows = {
            "adapters": ", ".join(model.adapters) or "none",
            "layers": ", ".join(model.reference_layers) or "all",
            "regions": "yes" if model.reference_regions else "no",
            "size": f"{model.default_width}x{model.default_height}",
            "sizes": f"{model.min_size} to {model.max_size} in steps of {model.size_multiple}",
            "steps": str(model.default_steps),
            "guidance": f"{model.default_guidance_scale:g}",
            "prompt": f"{model.prompt_tokens} tokens",
            "samplers": ", ".join(
                f"{entry.sampler} ({entry.min_steps}-{entry.max_steps})" for entry in model.samplers
            ),
            "buckets": ", ".join(str(rows) for rows in model.buckets),
            "weights": model.weights_hash,
        }
        lines += [f"  {name:<10}{value}" for name, value in rows.items()]
    lines.append("limits")
    lines += [f"  {name:<24}{value}" for name, value in asdict(limits).items()]
    return "\n".join(lines)


def health_text(health: Health) -> str:
    """Give both answers in one line."""
    return f"live: {_yes(health.live)}, ready: {_yes(health.ready)}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def error_json(error: LimnerError) -> dict[str, Any]:
    """Give everything that an error carries."""
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    return {
        "error": {
            "type": type(error).__name__,
            "message": error.message,
            "code": error.code,
            "reason": error.reason,
            "request_id": error.request_id,
            "task_id": error.task_id,
            "retry_after_seconds": error.retry_after,
            "violations": [asdict(violation) for violation in violations],
            "metadata": error.metadata,
        }
    }


def error_text(error: LimnerError) -> str:
    """Say what went wrong, field by field, and what to look up in the server's log."""
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    # where there are violations, the message only strings them together
    lines = [f"limner: {'the request is invalid' if violations else error.message} ({error.reason})"]
    lines += [f"  {violation.field}: {violation.description}" for violation in violations]
    if error.retry_after is not None:
        lines.append(f"  try again in {error.retry_after:g} s")
    if error.request_id:
        lines.append(f"  request {error.request_id}" + (f", task {error.task_id}" if error.task_id else ""))
    return "\n".join(lines)
