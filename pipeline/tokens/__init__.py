"""Sequences to k-mer ids: encode, padding, reverse complement, the Hugging Face tokenizer."""
