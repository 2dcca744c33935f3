"""Calibration for int8: find between which values a model's activations lie."""
