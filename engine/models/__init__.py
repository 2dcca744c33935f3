"""Models in diffusers' directory layout: read them, check them, and run their parts (DESIGN sections 1 and 7)."""
