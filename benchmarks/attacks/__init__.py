"""Attacks on the verbs, for `benchmarks/attack.py`: one file a kind of attack."""
