"""From models to ONNX files that compute the same."""
