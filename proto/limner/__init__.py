"""The Limner API."""
