"""The Open Inference Protocol before the native API; imported only where it is served (``docs/kserve.md``)."""
