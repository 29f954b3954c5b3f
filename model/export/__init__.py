"""Export of a fine-tuned model as one ONNX file. Entry point: onnx.export_onnx."""
