"""The gRPC surface: thin servicers, one conversion module, one mapping of errors."""
