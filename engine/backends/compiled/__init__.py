"""Backends that run an export: one class, and a runtime each for OpenVINO and ONNX Runtime (docs/backends.md)."""
