"""From the configuration to the engine's command line."""

from __future__ import annotations

from server.config.engine_options import EngineOptions


def engine_arguments(options: EngineOptions, *, log_level: str) -> list[str]:
    """Return the arguments of ``python -m engine serve``; what is left to the engine is not named."""
    given = {
        "--model": options.model,
        "--adapter": options.adapter,
        "--backend": options.backend,
        "--cache-dir": options.cache_dir,
        "--device": options.device,
        "--dtype": options.dtype,
        "--threads": options.threads,
        "--lanes": options.lanes,
        "--buckets": ",".join(map(str, options.buckets)),
        "--deterministic-bucket": options.deterministic_bucket,
        "--prompt-cache-bytes": str(options.prompt_cache_bytes),
        "--max-waiting": options.max_images_waiting,
        "--headroom": options.headroom,
        "--aging-seconds": str(options.aging_seconds),
        "--log-level": log_level,
    }
    pairs = [*given.items(), *(("--lora", lora) for lora in options.loras)]
    return [text for flag, value in pairs if value for text in (flag, str(value))]
