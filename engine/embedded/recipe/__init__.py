"""Train the embedded model from drawings: `python -m engine.embedded.recipe --help`."""
