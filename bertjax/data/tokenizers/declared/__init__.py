"""Tokenizers that a `tokenizer.json` declares: its rules are run as they are, or are BERT's."""
