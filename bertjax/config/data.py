"""How text becomes prepared shards."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, positive
from bertjax.errors import check

TokenizerKind = Literal["wordpiece", "unigram", "bpe", "byte_bpe"]


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes ids."""

    kind: TokenizerKind = "wordpiece"
    """WordPiece; a SentencePiece model, unigram or BPE; or byte-level BPE as RoBERTa's, which is
    cased.
    """
    vocab_file: str = ""
    """An existing vocabulary (vocab.txt, a SentencePiece .model, or vocab.json with merges.txt
    beside it); empty: train one on the corpus.
    """
    vocab_size: int = 30_522
    """Entries to train, special tokens included; a small corpus may give fewer."""
    lowercase: bool = True
    """Lower-case the text and strip accents ("uncased")."""
    train_characters: int = 50_000_000
    """Characters of the corpus, at most, that a new vocabulary is trained on."""

    def __post_init__(self) -> None:
        check(
            self.vocab_size > 5,
            where="tokenizer.vocab_size",
            found=self.vocab_size,
            expected="more than the 5 special tokens",
        )
        positive("tokenizer", self, "train_characters")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus and the instances made from it, as in section 3.1 of arXiv 1810.04805."""

    corpus: tuple[str, ...] = ("python-docs",)
    """Sources: `python-docs` (what CPython carries), files, folders, globs, or
    `tfds:NAME[/CONFIG]`.
    """
    format: Literal["auto", "bert", "file", "line", "jsonl", "parquet"] = "auto"
    """bert: a sentence a line, a blank line between documents; file / line: one document each;
    auto: jsonl and parquet by the file's ending, else bert."""
    text_field: str = "text"
    """The field that holds the text, in JSON lines, Parquet and TFDS sources."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """What to do with bytes that are not UTF-8: stop with an error, or put U+FFFD."""
    prepared_dir: str = "prepared"
    """The folder of prepared shards: `prepare` writes it, `train` and `eval` read it. It may also
    hold TFRecord files of another BERT data script, with a `tokenizer/` folder beside them."""
    validation_fraction: float = 0.02
    """Share of the documents held out, chosen by a hash of their content."""
    max_seq_length: int = 128
    """Ids in a row, special tokens and padding included."""
    max_predictions_per_seq: int = 20
    """Masked positions in a row, at most."""
    mlm_probability: float = 0.15
    """Share of a row's tokens to predict."""
    short_seq_probability: float = 0.1
    """Share of instances aimed at a random shorter length."""
    masking: Literal["token", "whole_word", "ngram", "span"] = "whole_word"
    """What is chosen together: single tokens; whole words; one to three words (arXiv 1909.11942);
    spans of words of geometric length (arXiv 1907.10529)."""
    dynamic_masking: bool = False
    """Choose anew at every step, inside the jitted step: `prepare` then leaves training shards
    unmasked. Shards that are masked already can be trained on so, too."""
    word_segmenter: Literal["none", "jieba"] = "none"
    """Where Chinese words begin, for whole-word masking: every token, or as the package jieba says."""
    sentence_objective: Literal["next_sentence", "sentence_order", "none"] = "next_sentence"
    """What the pair is asked: does B follow A, or come from elsewhere; are A and B in order, or
    swapped (arXiv 1909.11942); nothing, and rows are full of sentences (arXiv 1907.11692)."""
    cross_documents: bool = False
    """With no sentence objective: let a row run on into the next document, [SEP] between."""
    max_sequences_per_row: int = 1
    """Packing: inputs that may share a row, attention kept apart; 1: none do (arXiv 2107.02027)."""
    dupe_factor: int = 5
    """Times each document is made into instances, each with other pairs and masks."""
    min_document_characters: int = 0
    """Shorter documents are dropped."""
    near_duplicate_threshold: float = 0.0
    """Of documents whose 5-grams of tokens have about this Jaccard similarity or more, one is kept;
    0: all.
    """
    num_shards: int = 0
    """Training shards to write, each by one worker; 0: one for 64 MB of text, 8 at least."""
    workers: int = 0
    """Processes that prepare; 0: one a core. The output does not depend on it."""
    mixture: tuple[str, ...] = ()
    """Train on several prepared folders instead of `prepared_dir`, as NAME=FOLDER each."""
    mixture_weights: tuple[float, ...] = ()
    """Each folder's share of the rows, in any unit; empty: its number of rows to the power
    `mixture_exponent`."""
    mixture_exponent: float = 0.7
    """1: in proportion to size, 0: all alike; 0.7 is multilingual BERT's."""
    skip_damaged: bool = False
    """Train past records whose checksum is wrong, as empty rows, counted; else they are an error."""

    def __post_init__(self) -> None:
        check(len(self.corpus) > 0, where="data.corpus", found="no source", expected="at least one")
        fraction("data", self, "validation_fraction", "mlm_probability", "short_seq_probability")
        fraction("data", self, "near_duplicate_threshold", "mixture_exponent")
        positive("data", self, "mlm_probability", "max_predictions_per_seq", "dupe_factor")
        check(
            self.max_seq_length >= 8,
            where="data.max_seq_length",
            found=self.max_seq_length,
            expected="at least 8",
        )
        check(
            self.num_shards >= 0,
            where="data.num_shards",
            found=self.num_shards,
            expected="0 (as suits the corpus) or more",
        )
        check(
            self.workers >= 0,
            where="data.workers",
            found=self.workers,
            expected="0 (one a core) or more",
        )
        check(
            self.max_predictions_per_seq < self.max_seq_length,
            where="data.max_predictions_per_seq",
            found=self.max_predictions_per_seq,
            expected=f"less than data.max_seq_length ({self.max_seq_length})",
        )
        _check_rows(self)
        _check_mixture(self)


def _check_rows(data: DataConfig) -> None:
    wanted = int(data.mlm_probability * (data.max_seq_length - 3))
    room = f"at least {wanted}, data.mlm_probability of a row (or a lower data.mlm_probability)"
    check(
        data.max_predictions_per_seq >= wanted,
        where="data.max_predictions_per_seq",
        found=data.max_predictions_per_seq,
        expected=room,
    )
    most = data.max_sequences_per_row
    check(1 <= most <= 127, where="data.max_sequences_per_row", found=most, expected="1 to 127")
    full = not data.cross_documents or data.sentence_objective == "none"
    check(
        full,
        where="data.cross_documents",
        found=True,
        expected="data.sentence_objective none beside it",
    )


def _check_mixture(data: DataConfig) -> None:
    names = [entry.partition("=")[0] for entry in data.mixture]
    for entry in data.mixture:
        name, _, folder = entry.partition("=")
        check(
            name.isidentifier() and bool(folder),
            where="data.mixture",
            found=entry,
            expected="NAME=FOLDER, the name a word",
        )
    check(
        len(set(names)) == len(names),
        where="data.mixture",
        found=", ".join(names),
        expected="a name once",
    )
    weights = data.mixture_weights
    fits = not weights or (len(weights) == len(names) and min(weights) > 0)
    check(
        fits,
        where="data.mixture_weights",
        found=weights,
        expected=f"none, or a number above 0 for each of {len(names)} folders",
    )
