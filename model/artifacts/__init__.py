"""Readers of model directories, without torch.

Entry points: `manifest` (hashes of a directory's files), `model_directory` (facts of a model), `json_files`.
"""
