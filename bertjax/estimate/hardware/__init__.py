"""TPU chips and slices that a step can be compiled for."""
