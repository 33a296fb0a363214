"""Text to batches: corpora, tokenizers, preparation, records, and the input pipeline."""
