"""Cost of a train step on a TPU slice, estimated by the TPU compiler without a TPU."""
