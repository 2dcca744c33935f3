"""``python -m loadtests.bench``: the service against diffusers and against its own bare engine loop.

Everything that is compared runs in turns within the same minutes on the same machine, with the same weights,
settings and number of threads, so the ratios hold where absolute times do not.
"""
