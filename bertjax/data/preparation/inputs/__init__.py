"""Inputs: documents become one or two segments each, and these become rows of ids."""
