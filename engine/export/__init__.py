"""From a model directory to the graphs that compiled backends run: ONNX files and a manifest (docs/backends.md)."""
