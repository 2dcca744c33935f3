"""Portraits: what was asked for, what is made of it, and how it is made."""
