"""The BERT of both stages: build, forward pass, reading frames, masking, objectives, FLOPs."""
