"""What is run on a GPU by hand: equivalence on the device, and speed (docs/gpu.md)."""
