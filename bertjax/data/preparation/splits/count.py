"""Count of a corpus's documents, as far as it is needed to know that the splits get enough.

It ends as soon as each split has enough documents by the hash alone. Whatever comes after them, the
hash suffices. At a fraction of 0.02 that is after about 100 documents. Only a corpus of few
documents, or a tiny fraction, is counted to the end.
"""

import bisect
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from etils import epath

from bertjax.config import DataConfig
from bertjax.data.corpus.work_units import WorkUnit, read_documents
from bertjax.data.preparation.documents import digest
from bertjax.data.preparation.runners import WorkItem
from bertjax.data.preparation.shard_assignment import bound_of, split_word
from bertjax.data.records.manifest import WORK
from bertjax.errors import disk_errors
from bertjax.json_values import record
from bertjax.storage import read_json, write_whole

FOLDER = "count"
FIRST_CHARACTERS = 8_000_000
"""Text that is counted in the calling process, in about a second, before all workers count."""
UNITS_AT_ONCE = 16
"""Work units that the workers count before it is known whether the hash suffices."""
# As many as two splits ever need, of two documents each.
_KEPT = 4
_WORD = re.compile(r"\w")

RunItems = Callable[[str, Sequence[WorkItem]], None]
"""`run(stage, items)` runs the items, in any order, and returns when all are done."""


@dataclass
class Extremes:
    """The lowest and the highest split words of some documents, `_KEPT` of each, ascending.

    A document that stands in the corpus several times counts once.
    """

    lowest: list[int] = field(default_factory=list)
    highest: list[int] = field(default_factory=list)
    characters: int = 0
    """Characters of the documents; without those of copies, as long as there are few documents."""

    def add(self, word: int, characters: int) -> None:
        """Take the split word of a document, and its length."""
        if word not in self.lowest:
            self.characters += characters
        _insert(self.lowest, word)
        del self.lowest[_KEPT:]
        _insert(self.highest, word)
        del self.highest[:-_KEPT]

    def counts(self, bound: int) -> dict[str, int]:
        """Return the number of documents in each split at `bound`; `_KEPT` stands for more too."""
        return {
            "train": sum(word >= bound for word in self.highest),
            "validation": sum(word < bound for word in self.lowest),
        }


def needed_documents(data: DataConfig) -> dict[str, int]:
    """Return the number of documents that each split needs for all rows that are asked for."""
    # A random B comes from another document of the same split.
    each = 2 if data.sentence_objective == "next_sentence" else 1
    return {"train": each, "validation": each if data.validation_fraction else 0}


def count(data: DataConfig, folder: str, work_units: Sequence[WorkUnit], run: RunItems) -> Extremes:
    """Return the extremes of the documents: of all, or of some for which the hash suffices."""
    extremes = Extremes()
    characters = 0
    for work_unit in work_units:
        for document in read_documents(work_unit, data, Counter()):
            if _add(document, extremes, data):
                return extremes
            characters += sum(map(len, document))
            if characters > FIRST_CHARACTERS:
                return _count_in_workers(data, folder, work_units, run)
    return extremes


def count_unit(data: DataConfig, folder: str, work_unit: WorkUnit) -> None:
    """Write the extremes of a work unit's documents to `.work/count/`, if that is not done."""
    path = epath.Path(folder) / WORK / FOLDER / f"{work_unit.name}.json"
    if path.exists():
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    extremes = Extremes()
    for document in read_documents(work_unit, data, Counter()):
        if _add(document, extremes, data):
            break
    write_whole(path, json.dumps(asdict(extremes)).encode())


def _count_in_workers(
    data: DataConfig, folder: str, work_units: Sequence[WorkUnit], run: RunItems
) -> Extremes:
    """Count the documents of some work units at a time, until the hash suffices."""
    counted = epath.Path(folder) / WORK / FOLDER
    extremes = Extremes()
    for begin in range(0, len(work_units), UNITS_AT_ONCE):
        chosen = work_units[begin : begin + UNITS_AT_ONCE]
        run("count", [WorkItem(count_unit, (data, folder, work_unit)) for work_unit in chosen])
        for work_unit in chosen:
            path = counted / f"{work_unit.name}.json"
            of_unit = record(Extremes, read_json(path), str(path))
            for word in of_unit.lowest + of_unit.highest:
                extremes.add(word, characters=0)
            extremes.characters += of_unit.characters
        if _suffice(extremes, data):
            break
    counted.rmtree()
    return extremes


def _add(document: Sequence[str], extremes: Extremes, data: DataConfig) -> bool:
    """Add a document to the extremes; return whether the hash suffices for those added so far."""
    if not _has_tokens(document):
        return False
    extremes.add(split_word(digest(document)), sum(map(len, document)))
    return _suffice(extremes, data)


def _suffice(extremes: Extremes, data: DataConfig) -> bool:
    """Return whether the hash alone gives each split enough of these documents."""
    counts = extremes.counts(bound_of(data.validation_fraction))
    return all(counts[split] >= needed for split, needed in needed_documents(data).items())


def _has_tokens(document: Sequence[str]) -> bool:
    """Return whether a tokenizer makes tokens of the document: not of controls and marks alone."""
    if any(map(_WORD.search, document)):
        return True
    return any(unicodedata.category(letter)[0] in "PS" for text in document for letter in text)


def _insert(words: list[int], word: int) -> None:
    position = bisect.bisect_left(words, word)
    if position == len(words) or words[position] != word:
        words.insert(position, word)
