"""Sequence to sequence from two BERT checkpoints, as BERT2BERT of arXiv 1907.12461: the encoder
that is fine-tuned, and a decoder that begins as another BERT (or the same), with new
cross-attention between them.
"""
