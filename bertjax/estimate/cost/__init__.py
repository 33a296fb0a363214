"""Costs of a compiled program: time, memory, FLOPs and collectives."""
