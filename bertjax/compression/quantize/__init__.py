"""Quantized models: weights of 8 bits, by the quantizer of the runtime that computes with them."""
