"""What every backend on a GPU shares: programs over tensors that never move; and torch as one (docs/gpu.md)."""
