"""Pretrain BERT-class encoders in JAX."""
