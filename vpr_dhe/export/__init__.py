"""Export of models to ONNX, with a check that outputs agree."""
