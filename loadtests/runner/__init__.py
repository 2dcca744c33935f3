"""Load tests: scenarios from data files, planned from a seed, sent open-loop or closed-loop to any target."""
