"""The engine: everything that turns a job into pictures. It knows neither gRPC nor the proto."""
