"""Distillation: what a student learns from a teacher, as terms beside the objective of a run."""
