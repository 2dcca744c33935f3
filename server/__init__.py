"""The server process: gRPC in front, an engine process behind. It imports no torch."""
