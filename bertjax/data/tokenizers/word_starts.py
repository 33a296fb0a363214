"""Pieces that begin a word although no space is before them, for masking.

A word is what lies between two spaces. In scripts without spaces between words that would be a
clause, so there each piece counts as a word.
"""

import re
import unicodedata

# About the line-breaking classes SA (complex context) and ID (ideographic) of Unicode Standard
# Annex 14, and Tibetan, Javanese and Balinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai, Lao, Tibetan, Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese, Yi
)
# Bytes of UTF-8: the number of bytes of a character by its first byte (RFC 3629, section 3).
_LEAD_BYTES = ((0x00, 0x7F, 1), (0xC2, 0xDF, 2), (0xE0, 0xEF, 3), (0xF0, 0xF4, 4))

FIRST_RULE, WORD_RULE = 1, 2
"""Versions of the rule where words begin; a tokenizer is saved with the rule that it has.

1: WordPiece and byte-level BPE know spaces only, SentencePiece some scripts without spaces, and a
word has any number of pieces. Tokenizers that were saved before there was another rule have this
one: a run goes on with the masks that it began with.
2: all kinds know the scripts of this file, and long words are divided (`masking.long_words`).
"""


def begins_unspaced(text: str) -> bool:
    """Return whether `text` begins with a letter of a script without spaces between words.

    A combining mark is none: it belongs to the letter before it.
    """
    return bool(_UNSPACED.match(text)) and not unicodedata.category(text[0]).startswith("M")


def bytes_begin_unspaced(piece: bytes) -> bool:
    """Return `begins_unspaced` for a piece of UTF-8, which may end in the midst of a character.

    Then the first and the last of the characters that it may become must both be of such scripts.
    """
    length = _bytes_of_character(piece)
    if len(piece) >= length:
        return length > 0 and begins_unspaced(piece.decode(errors="replace"))
    # The bytes that follow the first one are 0x80 to 0xBF.
    candidates = [piece.ljust(length, last).decode(errors="replace") for last in (b"\x80", b"\xbf")]
    return all(_UNSPACED.match(candidate) for candidate in candidates)


def _bytes_of_character(piece: bytes) -> int:
    """Number of bytes of the character that `piece` begins; 0 for a byte that begins none."""
    for first, last, length in _LEAD_BYTES:
        if piece and first <= piece[0] <= last:
            return length
    return 0
