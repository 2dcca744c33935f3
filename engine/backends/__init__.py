"""Where the network runs: one small protocol, one module for each runtime."""
