"""DeepSpeed's Muon, for BERT and for the convolutional network of the baselines, and the switch of torch.compile.

Entry points: `optimizer.make_muon`, `compilation.torch_compile`.
"""
