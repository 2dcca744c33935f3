"""The peers' server processes, each in its peer's own environment, where nothing else of this repository is needed."""
