"""Tokenizers: WordPiece, SentencePiece and byte-level BPE behind one interface."""
