"""Splitting running text into sentences, in English and Chinese."""

import re

# A stop, any closing quotes or brackets, then space: or a Chinese stop, which needs no space.
_END = re.compile(r"[.!?…]+[\"'”’)\]»]*(?=\s)|[。！？…]+[”’」』）】)\]]*")
_NO_END = re.compile(
    r"(?:^|[\s(\[\"'“‘。！？])"
    r"(?:(?:[A-Za-z]\.)*[A-Za-z]|[Cc]f|[Vv]s|etc|al|ca|approx|Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Sen|Gov|St|Jr|Sr|Ph\.D"
    r"|No|[Ff]igs?|[Ee]qs?|Sec|Vol|pp|eds?|Inc|Ltd|Co|Corp|Jan|Feb|Apr|Aug|Sept?|Oct|Nov|Dec)\.$"
)
_PARAGRAPH = re.compile(r"\n\s*\n")


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, white space folded to single spaces, none empty.

    A blank line ends one, and so does a stop with space after it, unless the word before is an
    initial or a usual abbreviation, or a small letter follows. 。！？ end one everywhere.
    """
    sentences = []
    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(paragraph.split())
        begin = 0
        for stop in _END.finditer(line):
            end = stop.end()
            if line[stop.start()] in ".!?" and not _ends(line, begin, end):
                continue
            # A straight quote right after a stop closes one that the sentence opened.
            if line[end : end + 1] == '"' and line.count('"', begin, end) % 2:
                end += 1
            sentences.append(line[begin:end].strip())
            begin = end
        sentences.append(line[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(line: str, begin: int, end: int) -> bool:
    after = line[end + 1 : end + 2]
    return not after.islower() and not _NO_END.search(line, max(begin - 1, end - 14, 0), end)
