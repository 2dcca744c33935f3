"""What the server and an engine process say to each other (docs/engine-protocol.md). Imports neither torch nor grpc."""
