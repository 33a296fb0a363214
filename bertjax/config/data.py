"""Configuration of the tokenizer and of data preparation."""

from dataclasses import dataclass
from typing import Literal

from bertjax.config.range_checks import fraction, not_negative, positive
from bertjax.errors import check

TokenizerKind = Literal["wordpiece", "unigram", "bpe", "byte_bpe"]

SPECIAL_TOKENS = 5
"""Special tokens of every vocabulary that is trained here: [PAD] [UNK] [CLS] [SEP] [MASK]."""

SPECIAL_TOKENS_PER_PAIR = 3
"""Special tokens that a pair of sentences takes of its row: [CLS] A [SEP] B [SEP]."""

MAX_SEQUENCES_PER_ROW = 127
"""Limit of `data.max_sequences_per_row`: `pack_ids` are varints of one byte, which has 7 bits."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer: which algorithm, and which vocabulary."""

    kind: TokenizerKind = "wordpiece"
    """Algorithm: BERT's WordPiece, a SentencePiece model, or byte-level BPE.
    wordpiece: as BERT. unigram, bpe: a SentencePiece model. byte_bpe: byte-level BPE as RoBERTa's,
    which keeps the case: set lowercase to False with it.
    """
    vocab_file: str = ""
    """Path of an existing vocabulary; empty: train one on the corpus.
    A vocab.txt (wordpiece), a SentencePiece .model (unigram, bpe), or a vocab.json with merges.txt
    beside it (byte_bpe).
    """
    # The size of the vocabulary that was published with BERT (uncased).
    vocab_size: int = 30_522
    """Number of tokens to train, special tokens included: above 5; a small corpus gives fewer."""
    lowercase: bool = True
    """Convert the text to lower case and strip accents ("uncased")."""
    train_characters: int = 50_000_000
    """Maximum number of characters of the corpus that a new vocabulary is trained on."""

    def __post_init__(self) -> None:
        check(
            self.vocab_size > SPECIAL_TOKENS,
            where="tokenizer.vocab_size",
            found=self.vocab_size,
            expected=f"more than the {SPECIAL_TOKENS} special tokens",
        )
        positive("tokenizer", self, "train_characters")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus, and how training sequences are made of it (arXiv 1810.04805, section 3.1)."""

    corpus: tuple[str, ...] = ("python-docs",)
    """Text sources: files, folders, glob patterns, `tfds:NAME[/CONFIG]`, or `python-docs`.
    `python-docs` is the documentation that every installation of CPython has: no download.
    """
    format: Literal["auto", "bert", "file", "line", "jsonl", "parquet"] = "auto"
    """Format of files, which says what a document is.
    bert: one sentence a line, a blank line between documents. file: one document a file. line: one
    document a line. jsonl, parquet: one document an object or table row. auto: jsonl or parquet by
    the file's ending, otherwise bert.
    """
    text_field: str = "text"
    """Name of the field that holds the text in JSON lines, Parquet and TFDS sources."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """For bytes that are not UTF-8: stop with an error (strict), or insert U+FFFD (replace)."""
    prepared_dir: str = "prepared"
    """Folder of prepared shards: written by `prepare`, read by `train` and `evaluate`.
    It may also hold TFRecord files of another BERT data script, with a `tokenizer/` folder beside
    them.
    """
    validation_fraction: float = 0.02
    """Fraction of the documents that are held out (0 to 1), chosen by a hash of their content."""
    max_seq_length: int = 128
    """Sequence length L in tokens, special tokens and padding included; at least 8."""
    # As the original create_pretraining_data.py; 15 % of 128 tokens are 19.2.
    max_predictions_per_seq: int = 20
    """Maximum number of masked positions in a row."""
    # As BERT's paper (arXiv 1810.04805, section 3.1, task #1).
    mlm_probability: float = 0.15
    """Fraction of a row's tokens that are to be predicted: above 0, at most 1."""
    # As the original script: fine-tuning meets inputs of all lengths.
    short_seq_probability: float = 0.1
    """Fraction of inputs whose target length is a random shorter one (0 to 1)."""
    masking: Literal["token", "whole_word", "ngram", "span"] = "whole_word"
    """Unit of masking: tokens that are masked together.
    token: single tokens. whole_word: all tokens of a word. ngram: one to three words (arXiv
    1909.11942). span: spans of words of geometric length (arXiv 1907.10529).
    """
    dynamic_masking: bool = False
    """Choose new masks at every step, inside the compiled train step.
    `prepare` then writes training shards without masks. Shards that have masks can be trained on
    in this way, too.
    """
    word_segmenter: Literal["none", "jieba"] = "none"
    """Chinese word boundaries, for masking: every token is a word (none), or jieba's words."""
    sentence_objective: Literal["next_sentence", "sentence_order", "none"] = "next_sentence"
    """Objective beside masked words, about sentence pairs A, B.
    next_sentence: does B follow A, or come from elsewhere? sentence_order: are A and B in order, or
    swapped (arXiv 1909.11942)? none: no pairs; rows are filled with sentences (arXiv 1907.11692).
    """
    cross_documents: bool = False
    """With sentence_objective none: a row continues into the next document, [SEP] between."""
    max_sequences_per_row: int = 1
    """Packing: maximum number of inputs that share a row (1 to 127); 1: no packing.
    Inputs of a row do not attend to each other (arXiv 2107.02027).
    """
    # As in the original's README; the script itself has 10.
    dupe_factor: int = 5
    """Number of times that each document is made into inputs, always with other pairs and masks."""
    min_document_characters: int = 0
    """Documents with fewer characters are dropped."""
    near_duplicate_threshold: float = 0.0
    """Jaccard similarity (0 to 1) of 5-grams of tokens from which documents are near-duplicates.
    Of such documents one is kept; the similarity is estimated. 0: all are kept.
    """
    num_shards: int = 0
    """Number of training shards; 0: one for each 64 MB of text, at least 8.
    Each shard is written by one worker.
    """
    workers: int = 0
    """Number of processes that prepare; 0: one for each core. The output does not depend on it."""
    mixture: tuple[str, ...] = ()
    """Several prepared folders to train on, as NAME=FOLDER each, instead of prepared_dir."""
    mixture_weights: tuple[float, ...] = ()
    """Relative weight of each folder in every batch, in any unit.
    Empty: the folder's number of rows to the power mixture_exponent.
    """
    # multilingual.md of github.com/google-research/bert has this exponent and why.
    mixture_exponent: float = 0.7
    """Exponent from 0 (all folders alike) to 1 (in proportion to size); 0.7: multilingual BERT."""
    skip_damaged: bool = False
    """Read records with a wrong checksum as empty rows, counted; by default they are an error."""

    def __post_init__(self) -> None:
        check(len(self.corpus) > 0, where="data.corpus", found="no source", expected="at least one")
        # The ranges come first: `_check_lengths` calculates with these numbers.
        fraction("data", self, "validation_fraction", "mlm_probability", "short_seq_probability")
        fraction("data", self, "near_duplicate_threshold", "mixture_exponent")
        positive("data", self, "mlm_probability", "max_predictions_per_seq", "dupe_factor")
        not_negative("data", self, "num_shards", expected="0 (as suits the corpus) or more")
        not_negative("data", self, "workers", expected="0 (one a core) or more")
        _check_lengths(self)
        _check_packing(self)
        _check_mixture(self)


def _check_lengths(data: DataConfig) -> None:
    check(
        data.max_seq_length >= 8,
        where="data.max_seq_length",
        found=data.max_seq_length,
        expected="at least 8",
    )
    check(
        data.max_predictions_per_seq < data.max_seq_length,
        where="data.max_predictions_per_seq",
        found=data.max_predictions_per_seq,
        expected=f"less than data.max_seq_length ({data.max_seq_length})",
    )
    # With fewer positions than this, full rows would be masked less than mlm_probability says.
    ordinary_tokens = data.max_seq_length - SPECIAL_TOKENS_PER_PAIR
    min_predictions = int(data.mlm_probability * ordinary_tokens)
    check(
        data.max_predictions_per_seq >= min_predictions,
        where="data.max_predictions_per_seq",
        found=data.max_predictions_per_seq,
        expected=f"at least {min_predictions}, data.mlm_probability of a row"
        " (or a lower data.mlm_probability)",
    )


def _check_packing(data: DataConfig) -> None:
    check(
        1 <= data.max_sequences_per_row <= MAX_SEQUENCES_PER_ROW,
        where="data.max_sequences_per_row",
        found=data.max_sequences_per_row,
        expected=f"1 to {MAX_SEQUENCES_PER_ROW}",
    )
    check(
        not data.cross_documents or data.sentence_objective == "none",
        where="data.cross_documents",
        found=True,
        expected="data.sentence_objective none beside it",
    )


def _check_mixture(data: DataConfig) -> None:
    names = []
    for entry in data.mixture:
        name, _, folder = entry.partition("=")
        check(
            # The name becomes a part of metrics' names, such as rate/NAME.
            name.isidentifier() and bool(folder),
            where="data.mixture",
            found=entry,
            expected="NAME=FOLDER, the name a word",
        )
        names.append(name)
    check(
        len(set(names)) == len(names),
        where="data.mixture",
        found=", ".join(names),
        expected="a name once",
    )
    weights = data.mixture_weights
    one_each = len(weights) == len(names) and all(weight > 0 for weight in weights)
    check(
        not weights or one_each,
        where="data.mixture_weights",
        found=weights,
        expected=f"none, or a number above 0 for each of {len(names)} folders",
    )
