"""Splitter of running text into sentences, for English and Chinese."""

import re

# A stop, then optional closing quotes or brackets, then a space; a Chinese stop needs no space.
_END = re.compile(r"[.!?…]+[\"'”’)\]»]*(?=\s)|[。！？…]+[”’」』）】)\]]*")
# An initial or an abbreviation before a full stop: the stop does not end a sentence.
_NO_END = re.compile(
    r"(?:^|[\s(\[\"'“‘。！？])"
    r"(?:(?:[A-Za-z]\.)*[A-Za-z]|[Cc]f|[Vv]s|etc|al|ca|approx|Mr|Mrs|Ms|Dr"
    r"|Prof|Rev|Gen|Sen|Gov|St|Jr|Sr|Ph\.D"
    r"|No|[Ff]igs?|[Ee]qs?|Sec|Vol|pp|eds?|Inc|Ltd|Co|Corp|Jan|Feb|Apr|Aug|Sept?|Oct|Nov|Dec)\.$"
)
_PARAGRAPH = re.compile(r"\n\s*\n")


def split_sentences(text: str) -> list[str]:
    """Return the sentences of `text` without empty ones; white space is reduced to single spaces.

    A blank line ends a sentence. A stop (. ! ?) that is followed by a space ends a sentence too,
    unless the word before it is an initial or a common abbreviation, or a lower-case letter comes
    next. The Chinese stops 。！？ always end a sentence.
    """
    sentences = []
    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(paragraph.split())
        begin = 0
        for stop in _END.finditer(line):
            end = stop.end()
            if line[stop.start()] in ".!?" and not _ends(line, begin, end):
                continue
            # A straight quote right after a stop belongs to the sentence if it closes a quotation
            # that began in this sentence.
            if line[end : end + 1] == '"' and line.count('"', begin, end) % 2:
                end += 1
            sentences.append(line[begin:end].strip())
            begin = end
        sentences.append(line[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(line: str, begin: int, end: int) -> bool:
    """Return True if the stop before `end` ends the sentence that begins at `begin`."""
    after = line[end + 1 : end + 2]
    # 14 characters are enough for the longest abbreviation and the character before it. A search
    # from the start of the sentence would take quadratic time in a line with many stops.
    # Sentences hardly ever begin in lower case: the stop is that of an abbreviation not listed.
    return not after.islower() and not _NO_END.search(line, max(begin - 1, end - 14, 0), end)
