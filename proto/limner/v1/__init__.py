"""Version 1 of the API, generated from the .proto files beside this one by `make stubs`."""
