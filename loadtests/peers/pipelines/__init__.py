"""diffusers' pipeline as its users run it: torch by itself, compiled by torch, or converted to OpenVINO."""
