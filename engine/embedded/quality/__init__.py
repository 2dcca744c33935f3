"""Measure what the model in the box draws: `python -m engine.embedded.quality --help`."""
