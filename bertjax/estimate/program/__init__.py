"""Compiled programs, read from the text that the TPU compiler prints."""
