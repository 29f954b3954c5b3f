"""The files of a trained model's directory, read without torch.

Entry points: `manifest` (hashes of a directory's files), `model_directory` (facts of a model), `json_files`.
"""
