"""The link to an engine process: spawned, watched, replaced when it dies, and what was in flight replayed."""
