"""Replaced-token detection: a generator and the model, its discriminator, in one step."""
