"""Marks that end a sentence in the scripts of the world, and the stops that do not.

The marks are those of Unicode's property Sentence_Terminal (PropList.txt, used by UAX #29), with
these differences. Left out, because they part phrases as a comma does: Myanmar U+104A, Javanese
U+A9C8, Balinese U+1B5E, Philippine U+1735 and the Armenian U+2024. Added, because a sentence ends
there too: the Tibetan shad, the Hebrew sof pasuq, the end marks of Thai, Khmer, Sinhala, Coptic and
Georgian, and what is typed in place of a mark: a semicolon in Greek (NFC turns U+037E into it), a
colon in Armenian, two word spaces in Ethiopic, and the vertical bar in place of a danda.
"""

import functools
import re
from collections.abc import Iterator

# A sentence ends at these marks only before a space: they stand inside numbers and names too.
_SPACED = ".!?‽⸮"
_GREEK, _ARMENIAN, _ETHIOPIC, _INDIC = "Ͱ-Ͽἀ-῿", "Ա-ֆ", "ሀ-፟", "ऀ-ॣঀ-৿ਁ-੿ଁ-୿"
_KANA = "ぁ-ヿ"
_TIBETAN_SHADS = "།-༒༔"
# Marks that need no space after them, by Unicode block.
_UNSPACED = (
    "。！？｡︒︕︖﹖﹗‼⁇⁈⁉"
    "։׃؝-؟۔܀-܂߹࠷࠹࠽࠾।॥෴๚๛"
    + _TIBETAN_SHADS
    + "။჻።፧፨᙮᜶។៕៚᠃᠉᥄᥅᪨-᪫\u1b4e\u1b4f᭚᭛᭟᭽-\u1b7f᰻᰼᱾᱿⳹-⳻⳾⸼⹓⹔꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧉꩝-꩟꫰꫱꯫"
)
# Danda and section marks of scripts above the first plane, most of them historic. They have a
# pattern of their own, because sets with such characters are searched eight times more slowly.
_HISTORIC = (
    "\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048"
    "\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de"
    "\U000111df\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U000113d4\U000113d5"
    "\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642"
    "\U0001173c-\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c"
    "\U00011c41\U00011c42\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f"
    "\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e\U00016d6f\U00016e98\U0001bc9f"
    "\U0001da88"
)
_HAS_HISTORIC = re.compile("[\U00010a56-\U0001da88]")
# Quotes and brackets that close after a mark. German and Danish close with “ ‘ « too.
_CLOSING = r"[\"'”’“‘)\]»›«‹]*"
_CLOSING_UNSPACED = r"[”’」』）】)\]»›］｝｣〕〗〉》﹂﹄]*(?:[\"']+(?=\s|$))?"
# French parts the closing quote from the mark by a space.
_SPACED_QUOTE = r"(?: »(?=\s|$))?"


def _pattern(unspaced: str) -> re.Pattern[str]:
    """Return the pattern of a mark with what closes after it; `unspaced` marks need no space."""
    # It begins with a set of characters: then the engine skips other text at C speed.
    return re.compile(
        rf"[{_SPACED}…;\u037e:|፡．﹒{unspaced}](?:"
        # Only from the first mark of a run: a line of dots would take quadratic time otherwise.
        rf"(?<=[{_SPACED}…\u037e])(?<![{_SPACED}…].)[{_SPACED}…]*{_CLOSING}{_SPACED_QUOTE}(?=\s|$)"
        rf"|(?:(?<=[{_GREEK}];)|(?<=[{_GREEK}][»”’)];)|(?<=[{_ARMENIAN}]:))"
        rf"{_CLOSING}{_SPACED_QUOTE}(?=\s|$)"
        # "។ល។" is the Khmer "and so on". Two shads may have a space between them. A number between
        # two double dandas counts verses and belongs to the verse before.
        rf"|(?<=[{unspaced}…])(?:(?<=។)ល។)?[{unspaced}…!?]*(?: [{_TIBETAN_SHADS}]+)*"
        rf"(?:(?<=॥) ?\d{{1,4}} ?॥)?{_CLOSING_UNSPACED}{_SPACED_QUOTE}"
        # A wide full stop also stands in numbers and between letters: ３．１４, Ｕ．Ｓ．
        rf"|(?<=[．﹒])(?<!\d[．﹒])(?![\dA-Za-zＡ-Ｚａ-ｚ]){_CLOSING_UNSPACED}"
        # Beside kana, ! and ? stand for the wide marks.
        rf"|(?<=[{_KANA}一-鿿][!?])[!?]*{_CLOSING_UNSPACED}(?=[{_KANA}])"
        rf"|(?<=[{_KANA}][!?])[!?]*{_CLOSING_UNSPACED}(?=[一-鿿])"
        rf"|(?<=[{_INDIC}]\|)(?=\s|$)"
        rf"|(?:(?<=፡)፡|(?<=[{_ETHIOPIC}]:):)[”’»›)\]]*"
        r")"
    )


CLOSING_MARK = re.compile(rf"[{_SPACED}…:{_UNSPACED}{_HISTORIC}\"'”’“‘)\]»›」』）】]")
"""A character that shows at a line's end that no sentence goes on in the next line."""
_END_ASCII = re.compile(r"[.!?](?<![.!?].)[.!?]*[\"')\]]*(?=\s|$)")
_END = _pattern(_UNSPACED)


@functools.cache
def _end_historic() -> re.Pattern[str]:
    # On first use: it takes 20 ms to compile, in each worker, and hardly any text needs it.
    return _pattern(_UNSPACED + _HISTORIC)


_LATIN = (
    "[Cc]f|[Vv]s|etc|al|ca|approx|Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Sen|Gov|St|Jr|Sr|Ph\\.D"
    "|No|[Ff]igs?|[Ee]qs?|Sec|Vol|pp|eds?|Inc|Ltd|Co|Corp|Jan|Feb|Apr|Aug|Sept?|Oct|Nov|Dec"
)
# Of other languages, such as the German bzw., the Spanish Sra. and the Turkish bkz.
_OTHER = (
    "bzw|vgl|Nr|Abb|usw|evtl|ggf|inkl|Bd|Dña|Sra|núm|págs?|Doç|Yrd|Sn|bkz"
    "|[Сс]тр|[Рр]ис|[Ии]м|[Уу]л|[Сс]м|[Сс]р|[Пп]роф|[Аа]кад|напр|табл|тыс|млн|млрд|руб|гг|вв|др|пр"
)
# Followed by a small letter, in text with capitals, these need no list.
_LOWER_ONLY = "mme|mlle|est|viz|refs?|ibid|dept|capt|lt|sgt|mt|ft|messrs|hon"
# Letters of alphabets: one of them before a full stop is an initial or an abbreviation, as in
# "А. С. Пушкин" or the Arabic "د.". One letter of other scripts may be a word: "네."
_LETTER = "A-Za-zÀ-ÖØ-öø-ɏͰ-ϿЀ-ԯԱ-ևא-תؠ-يٱ-ۓऄ-हঅ-হਅ-ਹଅ-ହა-ჿḀ-῿"
_BEFORE = r"(?:^|[\s(\[\"'“‘„«。！？（「『《【〈])"
# In Tamil, Telugu, Kannada and Malayalam an initial is a syllable, such as மு. or எம். (M.).
_SYLLABLE = "[அ-ஹ][ா-்]?|[அ-ஔ][க-ஹ]்|[అ-హ][ా-్]?|[ಅ-ಹ][ಾ-್]?|[അ-ഹ][ാ-്]?"
_INITIALS = rf"(?:[{_LETTER}]\.)*[{_LETTER}]|{_SYLLABLE}"
_NO_END = re.compile(rf"{_BEFORE}(?:{_INITIALS}|{_LATIN}|{_OTHER})\.$")
# In text without capitals "no." is the word, and before a digit it is short for number.
_LIST_LOWER = f"{_LATIN.replace('|No|', '|')}|{_OTHER}|{_LOWER_ONLY}".lower()
_NO_END_LOWER = re.compile(rf"{_BEFORE}(?:{_INITIALS}|{_LATIN}|{_OTHER}|{_LIST_LOWER})\.$")
_NUMBER_SIGN = re.compile(rf"{_BEFORE}no\.$")
# Before a small letter: an ordinal ("am 3. mai"), or the number of a list's item.
_ORDINAL = re.compile(rf"{_BEFORE}\d{{1,2}}\.$")
# After a quotation that ends in ! or ? these go on with the sentence. In 1,500 chapters of novels
# 80 % of the small letters after such a quotation begin one of them.
_SAID = re.compile(
    "(?:he|she|said|says|asked|asks|cried|cries|exclaimed|thought|shouted|inquired|replied|returned"
    r"|repeated|muttered|murmured|answered|whispered|demanded)\b"
)

_CASED_RANGES = ((0x41, 0x5B), (0xC0, 0x590), (0x10A0, 0x3000), (0xA640, 0xA800), (0xFF21, 0xFF3B))


def _capitals() -> str:
    """Return all capital letters, for a set in a pattern."""
    capitals: list[str] = []
    for first, end in _CASED_RANGES:
        capitals += filter(str.isupper, map(chr, range(first, end)))
    return "".join(capitals)


_CAPITALS = re.compile(f"[{_capitals()}]+")
_CAPITALS_ASCII = re.compile("[A-Z]+")
# The letters of one word before a stop, in Thai and Lao.
_THAI_ABBREVIATION = re.compile(r"(?:^|[^\u0e00-\u0eff])[\u0e00-\u0eff]{1,4}\.$")
_WORD = re.compile(r"\w")
# Scripts with a full stop of their own, beside which "." is a sign of abbreviation.
_OWN_STOP = re.compile(r"॥\s?\d{1,4}\s?॥|[।॥۔։።။།༎។]|፡፡")
_OWN_STOP_LETTERS = "Ա-֊؀-ۿऀ-૿ଁ-୷ༀ-႟ሀ-፟ក-៿"
_OWN_STOP_LETTER = re.compile(f"[{_OWN_STOP_LETTERS}]")
_STOP_AFTER_THEM = re.compile(rf"(?<=[{_OWN_STOP_LETTERS}])\.(?=\s)")
# The names of the Latin letters in Urdu, joined by ۔ as in پی۔ایچ۔ڈی (Ph.D.).
_URDU_INITIAL = re.compile(
    r"(?:^|[\s۔(])(?:اے|بی|سی|ڈی|ای|ایف|جی|ایچ|آئی|جے|کے|ایل|ایم|این|او|پی|کیو|آر|ایس|ٹی|یو|وی|ڈبلیو"
    r"|ایکس|وائی|زیڈ)۔$"
)
# English prose has three or more (3,400 documents of books, manuals and articles, those of 300
# characters and more).
CHARACTERS_PER_CAPITAL = 1000
SAMPLED_CHARACTERS = 1000
OWN_STOP_WEIGHT = 2


class SentenceEnds:
    """The ends of sentences in the paragraphs of one text."""

    def __init__(self, text: str):
        self._text = text
        if text.isascii():
            self._pattern = _END_ASCII
        else:
            self._pattern = _end_historic() if _HAS_HISTORIC.search(text) else _END
        self._no_capitals = _has_no_capitals(text)
        self._has_own_stop: bool | None = None

    def positions(self, paragraph: str) -> Iterator[int]:
        """Yield the end of each sentence that ends in a mark.

        White space in `paragraph` must be single spaces.
        """
        begin = 0
        for stop in self._pattern.finditer(paragraph):
            end = stop.end()
            if not self._ends(paragraph, begin, stop.start(), end):
                continue
            # A straight quote right after a mark belongs to the sentence if it closes a quotation
            # that began in this sentence.
            if paragraph[end : end + 1] == '"' and paragraph.count('"', begin, end) % 2:
                end += 1
            yield end
            begin = end

    def _ends(self, line: str, begin: int, stop: int, end: int) -> bool:
        """Return True if the mark at `stop` ends the sentence that begins at `begin`."""
        mark = line[stop]
        if mark in ".!?":
            return self._ends_at_stop(line, begin, stop, end)
        if mark in ";\u037e:‽⸮":
            return self._no_capitals or not _is_small(line[end + 1 : end + 2])
        if mark == "۔":
            joined = not line[end : end + 1].isspace()
            return not (
                joined and _URDU_INITIAL.search(line, max(begin - 1, stop - 8, 0), stop + 1)
            )
        if "།" <= mark <= "༔":
            # A text begins with a head mark and a shad, which end nothing.
            return _WORD.search(line, max(begin, stop - 64), stop) is not None
        return True

    def _ends_at_stop(self, line: str, begin: int, stop: int, end: int) -> bool:
        """Return True if one of . ! ? ends the sentence."""
        after = line[end + 1 : end + 2]
        # Sentences hardly ever begin in lower case: the stop is that of an abbreviation not listed.
        small = _is_small(after)
        if small and not self._no_capitals:
            return False
        if line[end - 1] == ".":
            return not self._abbreviates(line, begin, end, after, small)
        return not (small and end - stop > 1 and _SAID.match(line, end + 1))

    def _abbreviates(self, line: str, begin: int, end: int, after: str, small: bool) -> bool:
        """Return True if the full stop before `end` is the sign of an abbreviation."""
        # 14 characters are enough for the longest abbreviation and the character before it. A
        # search from the start of the sentence would take quadratic time in a line with many stops.
        first = max(begin - 1, end - 14, 0)
        if self._no_capitals:
            if _NO_END_LOWER.search(line, first, end):
                return True
            if small and _ORDINAL.search(line, first, end):
                return True
            if after.isdigit() and _NUMBER_SIGN.search(line, first, end):
                return True
        elif _NO_END.search(line, first, end):
            return True
        before = line[end - 2 : end - 1]
        if "\u0e01" <= before <= "\u0edf":
            return _THAI_ABBREVIATION.search(line, first, end) is not None
        return bool(_OWN_STOP_LETTER.match(before)) and self._uses_own_stop()

    def _uses_own_stop(self) -> bool:
        """Return True if the text ends its sentences with its script's own full stop."""
        if self._has_own_stop is None:
            own_stops = len(_OWN_STOP.findall(self._text))
            others = len(_STOP_AFTER_THEM.findall(self._text))
            # A sentence may hold several abbreviations. On the other hand a text with full stops
            # may quote a verse, which ends in a danda.
            self._has_own_stop = own_stops > 0 and OWN_STOP_WEIGHT * own_stops >= others
        return self._has_own_stop


def _is_small(letter: str) -> bool:
    # Georgian letters count as small ones for Unicode 11, and no sentence begins with a capital.
    return letter.islower() and not "ა" <= letter <= "ჿ"


def _has_no_capitals(text: str) -> bool:
    """Return True if a text in a script with capitals has next to none.

    Words in capitals alone do not count: placeholders such as NUM or URL stand in lower-cased
    corpora too.
    """
    most = len(text) // CHARACTERS_PER_CAPITAL
    pattern = _CAPITALS_ASCII if text.isascii() else _CAPITALS
    capitals = 0
    for run in pattern.finditer(text):
        if run.end() - run.start() == 1:
            capitals += 1
            # Most texts leave here, after a tenth of their characters.
            if capitals > most:
                return False
    # A Chinese or Hindi text with a few English words shows nothing: in half of its letters or more
    # it has no capitals to begin with.
    some = text[:: len(text) // SAMPLED_CHARACTERS + 1]
    return 2 * sum(map(str.islower, some)) >= sum(map(str.isalpha, some))
