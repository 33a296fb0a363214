"""Words of an answer by the script of CMRC 2018, and the longest run that two answers share.

The script is `cmrc2018_evaluate.py`, version 5 (https://github.com/ymcui/cmrc2018). Each Han
character is a word. What stands between them is divided by `word_tokenize` of NLTK, that is, by the
rules of the Penn Treebank. Those rules are repeated here as of NLTK 3.10, without the ones for
characters that the script removes before.

NLTK first divides a text into sentences, with a trained model; here a stop before white space ends
a sentence unless it belongs to an abbreviation. The two can only differ on an answer with several
English sentences.
"""

import re

from bertjax.tasks.scripts import HAN

REMOVED = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
"""Punctuation that does not count.

The script lists `……` as well, two characters in one entry, which no single character equals: so
they stay.
"""
_REMOVED = str.maketrans("", "", REMOVED)
_HAN_OR_BETWEEN = re.compile(f"{HAN.pattern}|(?:(?!{HAN.pattern}).)+", re.DOTALL)

# A period that does not end a sentence, by its word: single letters, u.s., numbers, and these.
_ABBREVIATIONS = re.compile(
    "bros|co|corp|dr|etc|gen|gov|inc|jr|lt|ltd|maj|messrs|mr|mrs|ms|no|prof|rep|rev|sen|sgt|sr|st"
    "|vol|vs"
)
_STOP = re.compile(r"(\S*?)([.?!][\"')\]}»]*)\s+")
# Applied in this order. Letters are small already.
_TREEBANK = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Opening quotes.
        (r"[«‘„]", r" \g<0> "),
        (r'^"', " `` "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        # The period at the end, with what closes after it.
        (r"([^.])\.([\])}>\"'» ]*)\s*$", r"\1 . \2 "),
        # Commas, except between digits.
        (r",(\D)", r" , \1"),
        (r",$", " , "),
        (r"\.{2,}", r" \g<0> "),
        (r"[;@#$%&?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[\][(){}<>]", r" \g<0> "),
        # A space at both ends, which the rules below ask for.
        (r"\A|\Z", " "),
        # Closing quotes, and endings such as 's and n't.
        (r"»", " » "),
        (r"''|\"", " '' "),
        (r"([^' ])('[smd]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        # Words that were written together.
        (r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim)(me)\b|\b(gon)(na)\b", r" \1\3\5\7 \2\4\6\8 "),
        (r"\b(got)(ta)\b|\b(lem)(me)\b|\b(more)('n)\b", r" \1\3\5 \2\4\6 "),
        (r"\b(wan)(na)(?=\s)| ('t)(is|was)\b", r" \1\3 \2\4 "),
    )
]


def normalized(text: str) -> str:
    """Return `text` in small letters, without `REMOVED` and white space at its ends."""
    # Removed after the ends are stripped, as in the script.
    return text.lower().strip().translate(_REMOVED)


def words(normalized_text: str) -> list[str]:
    """Return the words of a normalized answer: Han characters, and the Treebank's between them."""
    all_words = []
    for part in _HAN_OR_BETWEEN.findall(normalized_text):
        if HAN.match(part):
            all_words.append(part)
        else:
            all_words += treebank_words(part)
    return all_words


def treebank_words(text: str) -> list[str]:
    """Return the words of a text in small letters, by the rules of the Penn Treebank."""
    # Most of what stands between Han characters is a number, and has nothing to part with.
    if text.isdecimal():
        return [text]
    all_words = []
    for sentence in _sentences(text):
        for pattern, replacement in _TREEBANK:
            sentence = pattern.sub(replacement, sentence)
        all_words += sentence.split()
    return all_words


def _sentences(text: str) -> list[str]:
    begin = 0
    sentences = []
    for match in _STOP.finditer(text):
        if match[2][0] != "." or _ends_sentence(match[1]):
            sentences.append(text[begin : match.end(2)])
            begin = match.end()
    return [*sentences, text[begin:]]


def _ends_sentence(word: str) -> bool:
    """Return whether a period after this word ends a sentence."""
    is_short = len(word) == 1 or "." in word or word.isdecimal()
    return not is_short and _ABBREVIATIONS.fullmatch(word) is None


def longest_common_run(first: list[str], second: list[str]) -> int:
    """Return the length of the longest run of consecutive words that both have."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(second):
        places.setdefault(word, []).append(place)
    longest = 0
    # The length of the run that ends with the word before, by its place in `second`.
    before: dict[int, int] = {}
    for word in first:
        lengths = {place: before.get(place - 1, 0) + 1 for place in places.get(word, ())}
        longest = max(longest, max(lengths.values(), default=0))
        before = lengths
    return longest
