"""A vocabulary of three letters and a word."""

from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece

ENTRIES = [*SPECIAL_TOKENS, "a", "b", "c", "##a", "##b", "##c", "cat", "##ab"]


def wordpiece(entries=ENTRIES, lowercase=True):
    return WordPiece("vocab.txt", "".join(f"{entry}\n" for entry in entries).encode(), lowercase)


def folder_of(path, entries=ENTRIES, lowercase=True):
    wordpiece(entries, lowercase).save(path)
    return path
