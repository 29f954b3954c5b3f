"""Export of fine-tuned models as one ONNX file. Entry point: onnx.export_onnx."""
