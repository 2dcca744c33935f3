"""The types of numbers that a model's weights may be loaded in, by the names that settings give them."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
