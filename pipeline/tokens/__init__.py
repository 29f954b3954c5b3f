"""Tokenization: sequences to k-mer ids and back.

Entry points: kmers.encode_promoters (an Arrow column), kmers.encode_text (one sequence), padding.pad_tokens,
reverse_complement.reverse_complement, hf_tokenizer.build_tokenizer (for Hugging Face users).
"""
