"""Sequence to sequence from two BERT checkpoints, BERT2BERT of arXiv 1907.12461.

The encoder is fine-tuned. The decoder begins as another BERT, or as the same one, with new
cross-attention.
"""
