"""Pictures in and out: strangers' decoded with suspicion, finished ones encoded, both off the event loop."""
