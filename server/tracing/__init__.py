"""Traces: spans of calls and of their stages, told to a collector where one is configured (``docs/tracing.md``)."""
