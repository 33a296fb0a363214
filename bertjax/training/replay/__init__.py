"""The batches of a pretraining run, made again from its configuration, seed and data."""
