"""The files of a trained model's directory, read without torch.

Entry points: `manifest` (hashes that prove a directory whole), `model_directory` (facts of a model), `json_files`.
"""
