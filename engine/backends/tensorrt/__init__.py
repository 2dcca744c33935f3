"""Backends on TensorRT and TensorRT-RTX: the engine's build, its cache, and what runs it (docs/gpu.md)."""
