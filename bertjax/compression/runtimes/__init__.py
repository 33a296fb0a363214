"""Exported folders in the runtimes that serve them, each in a process of its own."""
