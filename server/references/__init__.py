"""References: upload once, generate for ever."""
