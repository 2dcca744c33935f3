"""The heart of the engine: one thread owns the scheduler and the backend and turns jobs into pictures."""
