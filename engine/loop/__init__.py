"""The heart of the engine: one thread runs the backend and, between steps, the scheduler."""
