"""Splits of a corpus of few documents: how many there are, and where the bound moves."""
