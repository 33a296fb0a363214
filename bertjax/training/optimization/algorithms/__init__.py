"""Algorithms of the optimizer at learning rate 1: one file each, and the table of their names."""
