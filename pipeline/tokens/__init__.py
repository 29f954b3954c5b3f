"""Sequences to k-mer ids and back.

`kmers.encode_promoters` (an Arrow column), `kmers.encode_text`, `padding.pad_tokens`,
`reverse_complement.reverse_complement`, `hf_tokenizer.build_tokenizer` (for Hugging Face users).
"""
