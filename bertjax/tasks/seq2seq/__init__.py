"""Sequence to sequence from two BERT checkpoints (BERT2BERT in arXiv 1907.12461).

The encoder is fine-tuned. The decoder starts with the parameters of the same or of another BERT;
only its cross-attention is new.
"""
