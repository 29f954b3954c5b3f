"""Motifs of a MEME file, and their hits in sequences.

Entry points: meme_file.read_motifs, scan.MotifScanner.
"""
