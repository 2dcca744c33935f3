"""The types that sides compute in, as their names and command lines write them."""

FLOATS = ("float32", "bfloat16")
DTYPES = (*FLOATS, "int8")
