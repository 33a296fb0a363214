"""Survey of a split: whether pairs of next sentences can be made of its documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertjax.config import Config, DataConfig
from bertjax.data.corpus.work_units import WorkUnit, formats_of
from bertjax.data.preparation.documents import Documents
from bertjax.data.preparation.inputs.document_pool import TokenizedCorpus, without_duplicates
from bertjax.data.preparation.inputs.instances import max_sentence_length
from bertjax.data.preparation.tokenize_corpus import read_ranges
from bertjax.errors import check, mismatch

# Half of the pairs whose A has a next sentence are random, and all others are. So at a fifth nine
# labels in ten are the same, and few are left to learn from.
MIN_SHARE_WITH_NEXT = 0.2
"""Smallest share of the pairs whose A has a next sentence."""
# A share of one half is then known within 0.05 (three standard deviations).
ENOUGH_DOCUMENTS = 1000
"""Documents after which a survey may end early, if what they show is enough."""
MAX_TOKENS_AT_ONCE = 1 << 22
"""About as many tokens as are in memory at once, unless a range has more."""


@dataclass
class SplitSurvey:
    """What decides whether pairs of next sentences can be made of a split."""

    documents: int = 0
    """Documents without duplicates."""
    with_next: int = 0
    """Those of them with two sentences, or one longer than a row, which counts as several."""
    pairs_with_next: int = 0
    """About as many pairs as have an A with a next sentence, of one pass over the documents."""

    @property
    def share_with_next(self) -> float:
        """The share of the pairs whose A has a next sentence; 0 where there are no documents."""
        without_next = self.documents - self.with_next
        return self.pairs_with_next / max(1, self.pairs_with_next + without_next)

    def is_enough(self) -> bool:
        """Whether there are documents, and next sentences, to make pairs of."""
        return self.documents > 1 and self.share_with_next >= MIN_SHARE_WITH_NEXT


def config_of_split(
    split: str, config: Config, corpus: TokenizedCorpus, work_units: Sequence[WorkUnit]
) -> Config:
    """Return the configuration by which the rows of a split of a corpus of `work_units` are made.

    One document gives no random B, and documents of a sentence each give no B that follows A. A
    held-out split of such documents is made without pairs, and the loss of masked words can be
    computed. The same is true of `sentence_order` and documents of a token each, which cannot be
    parted. Raises `UserError` if it is the training split.
    """
    ranges = corpus.plan.ranges_in(split)
    objective = config.data.sentence_objective
    if objective == "none" or not ranges:
        return config
    without_pairs = config.replace(data={"sentence_objective": "none"})
    if objective == "sentence_order":
        if _can_be_parted(corpus, ranges):
            return config
        check(
            split != "train",
            where="split train",
            found="no document of two tokens or more, whose parts could be swapped",
            expected="longer ones (or data.sentence_objective none)",
        )
        return without_pairs
    survey = survey_split(corpus, ranges, config.data)
    # That there are no documents at all is found when the manifest is made.
    if survey.is_enough() or not survey.documents:
        return config
    if split == "train":
        _refuse(survey, config.data, work_units)
    return without_pairs


def _can_be_parted(corpus: TokenizedCorpus, split: range) -> bool:
    """Return whether a document of a split has two tokens, or whether there are no documents."""
    # That there are no documents at all is found when the manifest is made.
    documents = 0
    for gathered in read_ranges(corpus.parts(), split):
        found, _ = without_duplicates(gathered, corpus.dropped())
        if (np.diff(found.sentences[found.documents]) > 1).any():
            return True
        documents += len(found)
    return documents == 0


def _refuse(survey: SplitSurvey, data: DataConfig, work_units: Sequence[WorkUnit]) -> None:
    """Raise `UserError` for a training split of which no pairs can be made."""
    check(
        survey.documents > 1,
        where="split train",
        found="one document, so that no B is from another",
        expected="two or more (or data.split_documents, which cuts long ones, "
        "or data.sentence_objective sentence_order or none)",
    )
    ways = ["data.sentence_objective sentence_order or none"]
    # In the other formats a line is a document, whose sentences are found.
    if data.sentences in ("auto", "lines") and "bert" in formats_of(work_units, data):
        ways.insert(0, "data.sentences paragraphs, if a line has several sentences")
    raise mismatch(
        where="split train",
        found=f"two sentences or more in {survey.with_next} of {survey.documents} documents, "
        "so that nearly every B is random",
        expected=f"a next sentence for {MIN_SHARE_WITH_NEXT:.0%} of the pairs "
        f"(or {', or '.join(ways)})",
    )


def survey_split(corpus: TokenizedCorpus, split: range, data: DataConfig) -> SplitSurvey:
    """Count documents and next sentences in the ranges of a split.

    Ends early where there are enough of both: the hash puts documents into ranges, so the first
    ones are a random sample. So a survey that ends in a refusal has seen the whole split.
    """
    parts, dropped = corpus.parts(), corpus.dropped()
    survey = SplitSurvey()
    begin, size = split.start, 1
    while begin < split.stop:
        numbers = range(begin, min(begin + size, split.stop))
        tokens = 0
        for gathered in read_ranges(parts, numbers):
            documents, _ = without_duplicates(gathered, dropped)
            _add(survey, documents, max_sentence_length(data, corpus.layout))
            tokens += len(gathered.tokens)
        if survey.documents >= ENOUGH_DOCUMENTS and survey.is_enough():
            break
        begin += size
        # Ranges are about equally full, so twice as many hold about twice as many tokens. A few
        # documents are found quickly among thousands of empty ranges.
        if 2 * tokens <= MAX_TOKENS_AT_ONCE:
            size *= 2
    return survey


def _add(survey: SplitSurvey, documents: Documents, place: int) -> None:
    """Count documents; a row has place for so many of their tokens."""
    sentences = np.diff(documents.documents)
    tokens = np.diff(documents.sentences[documents.documents])
    has_next = (sentences > 1) | (tokens > place)
    survey.documents += len(documents)
    survey.with_next += int(has_next.sum())
    # About as many as rows that the document fills, and one at least.
    pairs = np.maximum(1, tokens[has_next] // place)
    survey.pairs_with_next += int(pairs.sum())
