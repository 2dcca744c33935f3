"""Files that several processes share: locked, digested, and written whole or not at all. It knows nothing of models."""
