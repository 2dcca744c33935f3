"""Calibration for int8: find between which values the activations of a model's UNet lie."""
