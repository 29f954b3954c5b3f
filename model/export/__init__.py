"""The model as one ONNX file."""
