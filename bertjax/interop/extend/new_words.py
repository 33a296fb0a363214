"""Words of a tokenizer: those that it has whole, and those that it is extended by."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from etils import epath

from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.sentencepiece import WORD
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.data.tokenizers.vocabulary import CONTINUES, SPACE
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError, check, excerpt, mismatch
from bertjax.given_files import place_of, read_file


def whole_words(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of the entries that begin a word, by the word without its mark.

    Such entries are `cat` in WordPiece, `▁cat` in SentencePiece and `Ġcat` in byte-level BPE.
    Byte-level BPE writes letters beyond ASCII as bytes, so the result does not have words with such
    letters.
    """
    if isinstance(tokenizer, DeclaredTokenizer):
        return tokenizer.words()
    ids = np.flatnonzero(tokenizer.starts_word).tolist()
    words: dict[str, int] = {}
    for i, entry in zip(ids, tokenizer.pieces(ids), strict=True):
        # A piece of Thai begins a word for masking, and may continue one in WordPiece.
        if tokenizer.kind == "wordpiece" and entry.startswith(CONTINUES):
            continue
        word = entry.removeprefix(WORD).removeprefix(SPACE)
        if word:
            words[word] = i
    return words


def encode_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """Return the ids of each word."""
    ids, offsets = tokenizer.encode_batch(words)
    return [ids[begin:end].tolist() for begin, end in pairwise(offsets)]


def read_new_words(path: epath.PathLike) -> list[str]:
    """Return the lines of a UTF-8 file that has one word per line.

    Raises `UserError` if the file cannot be read or has no word.
    """
    content = read_file(place_of(path), "a list of words")
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as a list of words ({error})") from error
    check(text.strip(), where=str(path), found="no word", expected="one a line")
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def extend_tokenizer(folder: epath.PathLike, words: Sequence[str], source: str) -> Tokenizer:
    """Return the WordPiece tokenizer saved in `folder` with `words` as further entries.

    The new ids follow the old ones. WordPiece takes the longest match first, so the pieces of a
    longer word change too if it begins with a new word. The ids of all other text stay the same.

    Raises `UserError`, naming `source` and the line, for a word that is empty, has a space, is
    known already, or could never be encoded as one entry: BERT divides "covid-19" into three words,
    and an uncased tokenizer makes all letters lower case. One such line is an error, because nobody
    would notice an embedding that takes memory and is never used.
    """
    folder = epath.Path(folder)
    old = load_tokenizer(folder)
    if not isinstance(old, WordPiece):
        raise mismatch(
            where=str(folder),
            found=f"a tokenizer of kind {old.kind}, which takes no new entries",
            expected="wordpiece with BERT's rules",
        )
    entries = old.pieces(range(old.vocab_size))
    _check_new_words(words, entries, source)
    content = "".join(f"{entry}\n" for entry in [*entries, *words]).encode()
    rule, registered = old.word_rule, old.registered
    # `is_saved`: white space at the end of an old entry stays, and every entry keeps its id.
    new = WordPiece(
        folder, content, old.lowercase, old.strip_accents, rule, registered, is_saved=True
    )
    _check_whole(new, words, old.vocab_size, source)
    return new


def _check_new_words(words: Sequence[str], entries: Sequence[str], source: str) -> None:
    """Raise `UserError` for a word that is empty, has a space, or is there already."""
    known_from = dict.fromkeys(entries, "in the vocabulary")
    for number, word in enumerate(words, 1):
        where = f"{source}, line {number}"
        check(
            # BERT divides text at white space first, so text never has an entry with a space in it.
            word != "" and not any(c.isspace() for c in word),
            where=where,
            found=excerpt(word),
            expected="a word without spaces",
        )
        check(
            word not in known_from,
            where=where,
            found=f"{excerpt(word)}, which is {known_from.get(word)} already",
            expected="a new word",
        )
        known_from[word] = f"on line {number}"


def _check_whole(tokenizer: Tokenizer, words: Sequence[str], first_id: int, source: str) -> None:
    """Raise `UserError` for the first word that `tokenizer` does not encode as its own entry.

    The id of the first of `words` is `first_id`.
    """
    encoded = encode_words(tokenizer, words)
    wrong = [i for i, ids in enumerate(encoded) if ids != [first_id + i]]
    if not wrong:
        return
    first = wrong[0]
    others = f" ({len(wrong)} lines like it)" if len(wrong) > 1 else ""
    pieces = excerpt(" ".join(tokenizer.pieces(encoded[first])))
    raise mismatch(
        where=f"{source}, line {first + 1}",
        found=f"{excerpt(words[first])}, read as {pieces}{others}",
        expected=(
            "a word that BERT does not split, in lower case where the tokenizer is uncased, and "
            "without accents where it strips them"
        ),
    )
