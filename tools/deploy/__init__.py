"""Generate and check what stands in deploy/."""
