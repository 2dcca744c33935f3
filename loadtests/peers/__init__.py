"""Limner beside its peers: the same weights, the same requests, the same cores, in turns within one run."""
