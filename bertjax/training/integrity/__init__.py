"""Digests of what a checkpoint holds: made while it is saved, compared when it is read."""
