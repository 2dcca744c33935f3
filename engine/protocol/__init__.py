"""What server and engine process say to each other (docs/engine-protocol.md). Imports no torch, no grpc."""
