"""Configuration of the tokenizer and of data preparation."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Literal

from bertjax.config.field_types import check_fields
from bertjax.config.range_checks import fit_int32, fraction, must_equal, not_negative, positive
from bertjax.config.sql_source import is_sql, parse_sql_source, without_password
from bertjax.errors import check

TokenizerKind = Literal["wordpiece", "unigram", "bpe", "byte_bpe"]

SPECIAL_TOKENS = 5
"""Number of special tokens in a vocabulary trained here: [PAD] [UNK] [CLS] [SEP] [MASK]."""

SPECIAL_TOKENS_PER_PAIR = 3
"""Number of special tokens in the row of a sentence pair: [CLS] A [SEP] B [SEP]."""

MAX_SEQUENCES_PER_ROW = 127
"""Limit of `data.max_sequences_per_row`: each of `pack_ids` is a varint of one byte (7 bits)."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer: its algorithm and its vocabulary."""

    kind: TokenizerKind = "wordpiece"
    """Algorithm: BERT's WordPiece, a SentencePiece model, or byte-level BPE.
    wordpiece: as in BERT. unigram, bpe: a SentencePiece model. byte_bpe: byte-level BPE as in
    RoBERTa; it keeps upper and lower case, so set lowercase to False.
    """
    vocab_file: str = ""
    """Path of an existing vocabulary; empty: train one on the corpus.
    A vocab.txt (wordpiece), a SentencePiece .model (unigram, bpe), or a vocab.json with merges.txt
    beside it (byte_bpe). A tokenizer.json says all itself.
    """
    # The size of the vocabulary that was published with BERT (uncased).
    vocab_size: int = 30_522
    """Size of a new vocabulary, special tokens included; above 5; smaller for a small corpus."""
    lowercase: bool = True
    """Convert the text to lower case ("uncased"); wordpiece then strips accents too, by default."""
    strip_accents: bool | None = None
    """Remove accents and other nonspacing marks; None: wordpiece does as `lowercase` says.
    unigram, bpe and byte_bpe keep them by default. Marks carry meaning in many scripts: without
    them Hindi loses vowels, Japanese ga is ka, Vietnamese loses its tones. Set it to False there.
    """
    train_characters: int = 50_000_000
    """Maximum number of characters of the corpus that a new vocabulary is trained on."""

    def __post_init__(self) -> None:
        check_fields("tokenizer", self)
        check(
            self.vocab_size > SPECIAL_TOKENS,
            where="tokenizer.vocab_size",
            found=self.vocab_size,
            expected=f"more than the {SPECIAL_TOKENS} special tokens",
        )
        positive("tokenizer", self, "train_characters")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus, and how training inputs are made from it (arXiv 1810.04805, section 3.1)."""

    corpus: tuple[str, ...] = ("python-docs",)
    """Text sources: files, folders, glob patterns, `tfds:NAME[/CONFIG]`, `python-docs`, or a query
    of a database, `sql:URL?query=SELECT ...` (or `?table=NAME`).
    `python-docs` is the documentation in every installation of CPython; it needs no download. URL
    is one of SQLAlchemy. Its password is used and never written; PGPASSWORD and ~/.pgpass work too.
    """
    format: Literal["auto", "bert", "file", "line", "jsonl", "parquet"] = "auto"
    """Format of the files; it determines what a document is.
    bert: each line is a sentence (see data.sentences), and a blank line separates documents. file:
    each file is a document. line: each line is a document. jsonl, parquet: each object or table row
    is a document. auto: jsonl or parquet if the file's ending says so, otherwise bert.
    The files in a .zip or .tar archive are read as files.
    """
    sentences: Literal["auto", "lines", "paragraphs", "wrapped", "document"] = "auto"
    """What a sentence is.
    auto: a line in format bert; in the others a sentence ends at its mark, such as . ! ? or that of
    another script, and a line is a sentence in a text without marks. lines: a line. paragraphs:
    found by its mark in each line. wrapped: found by its mark in lines that were broken at a common
    width; they are joined up to a blank line, which in format bert ends the document too. document:
    a document.
    """
    text_field: str = "text"
    """Name of the field that holds the text in JSON lines, Parquet, TFDS and SQL sources."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Bytes that are not UTF-8: strict stops with an error, replace puts U+FFFD in their place."""
    prepared_dir: str = "prepared"
    """Folder of prepared shards: written by `prepare`, read by `train` and `evaluate`.
    It may also hold TFRecord files of another BERT data script, with a `tokenizer/` folder beside
    them.
    """
    validation_fraction: float = 0.02
    """Fraction of documents that are held out (0 to 1); a hash of the content chooses them.
    Of few documents at least one is held out, two for next_sentence. 0: no held-out documents; then
    training has no evaluations.
    """
    max_seq_length: int = 128
    """Sequence length L in tokens, special tokens and padding included; at least 8."""
    # As the original create_pretraining_data.py; 15 % of 128 tokens are 19.2.
    max_predictions_per_seq: int = 20
    """Maximum number of masked positions in a row."""
    # As BERT's paper (arXiv 1810.04805, section 3.1, task #1).
    mlm_probability: float = 0.15
    """Fraction of a row's tokens that the model must predict: above 0, up to 1."""
    mlm_probability_to: float = 0.0
    """The fraction to which mlm_probability changes linearly; 0: it is constant.
    Held-out rows keep the masks with which they were prepared.
    """
    mlm_probability_steps: int = 0
    """Number of steps of this change, after which the fraction stays; 0: all of train.steps, or of
    the phases that have it.
    """
    # As in the original script: fine-tuning has inputs of all lengths.
    short_seq_probability: float = 0.1
    """Fraction of inputs that get a random shorter target length (0 to 1)."""
    masking: Literal["token", "whole_word", "ngram", "span"] = "whole_word"
    """Unit of masking: tokens that are masked together.
    token: single tokens. whole_word: all tokens of a word. ngram: one to three words (arXiv
    1909.11942). span: spans of words of geometric length (arXiv 1907.10529).
    """
    objective: Literal["masked", "diffusion"] = "masked"
    """What is predicted of the rows that are not causal (docs/objectives.md).
    masked: words that are masked at the rate mlm_probability. diffusion: tokens masked at a rate
    that each row draws anew, from 0 to 1, with the weight 1 / rate (arXiv 2406.07524, 2502.09992).
    """
    causal_share: float = 0.0
    """Share of each batch's rows that are causal, 0 to 1: no token sees those after it, and every
    next token is predicted (arXiv 2410.24159). The loss weighs rows of both kinds by their shares.
    """
    # As BERT's paper (arXiv 1810.04805, section 3.1, task #1).
    mask_shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    """Shares of the chosen tokens that become [MASK], become a random token, and stay; in sum 1.
    1 0 0 for [MASK] alone, as in NeoBERT (arXiv 2502.19587) and in masked diffusion.
    """
    dynamic_masking: bool = False
    """Choose new masks at every step, inside the compiled train step.
    `prepare` then writes training shards without masks. Training on shards that have masks also
    works; their masks are not used.
    """
    word_segmenter: Literal["none", "jieba"] = "none"
    """Words of Chinese text, for masking: each token is a word (none), or jieba's words."""
    sentence_objective: Literal["next_sentence", "sentence_order", "none"] = "next_sentence"
    """Second objective, beside masked words, on pairs of sentences A and B.
    next_sentence: predict whether B follows A in the text or comes from elsewhere. sentence_order:
    predict whether A and B are swapped (arXiv 1909.11942). none: no pairs; rows are filled with
    sentences (arXiv 1907.11692).
    """
    cross_documents: bool = False
    """With sentence_objective none: rows may go on with the next document, after a [SEP].
    Of a tokenizer that puts no token after a text it is the one before a text.
    """
    max_sequences_per_row: int = 1
    """Packing: maximum number of inputs in one row (1 to 127); 1: no packing.
    The inputs of a row do not attend to each other (arXiv 2107.02027).
    """
    # As in the original's README; the script itself has 10.
    dupe_factor: int = 5
    """Number of times that each document is used, each time with new pairs and new masks."""
    min_document_characters: int = 0
    """Minimum length of a document in characters; shorter documents are dropped."""
    split_documents: int = 0
    """Cut longer documents into stretches of about this many characters; 0: never.
    Each stretch is then a document, so a corpus of one book can have held-out documents.
    """
    near_duplicate_threshold: float = 0.0
    """Similarity (0 to 1) from which documents are near-duplicates; 0: keep all documents.
    It is the estimated Jaccard similarity of the documents' 5-grams of tokens. Only one of several
    near-duplicates is kept.
    """
    num_shards: int = 0
    """Number of training shards; 0: one for each 64 MB of text, but never fewer than 8.
    One worker writes each shard.
    """
    workers: int = 0
    """Number of worker processes; 0: one for each core. The output does not depend on it."""
    mixture: tuple[str, ...] = ()
    """Prepared folders to train on together, instead of prepared_dir; each as NAME=FOLDER."""
    mixture_weights: tuple[float, ...] = ()
    """Relative weight of each folder in every batch; the weights need not sum to 1.
    Empty: each weight is (number of rows in the folder) ** mixture_exponent.
    """
    # multilingual.md of github.com/google-research/bert has this exponent and why.
    mixture_exponent: float = 0.7
    """Exponent: 0 (equal weights) to 1 (weights proportional to size); multilingual BERT: 0.7."""
    skip_damaged: bool = False
    """Count records with a wrong checksum and read them as empty rows, instead of an error.
    Records that are whole, but not those of the manifest, stay an error.
    """

    def __repr__(self) -> str:
        # The one of dataclasses would have the passwords of databases, in any log or traceback.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["corpus"] = tuple(map(without_password, self.corpus))
        listed = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"DataConfig({listed})"

    def __post_init__(self) -> None:
        check_fields("data", self)
        fit_int32("data", self)
        check(len(self.corpus) > 0, where="data.corpus", found="no source", expected="at least one")
        for name in self.corpus:
            if is_sql(name):
                parse_sql_source(name)
        # The ranges come first: `_check_lengths` calculates with these numbers.
        fraction("data", self, "validation_fraction", "mlm_probability", "short_seq_probability")
        fraction("data", self, "near_duplicate_threshold", "mixture_exponent", "mlm_probability_to")
        fraction("data", self, "causal_share")
        positive("data", self, "mlm_probability", "max_predictions_per_seq", "dupe_factor")
        not_negative("data", self, "num_shards", expected="0 (as suits the corpus) or more")
        check(
            # Five digits stand for it in the names of the files.
            self.num_shards < 100_000,
            where="data.num_shards",
            found=self.num_shards,
            expected="less than 100,000",
        )
        not_negative("data", self, "workers", expected="0 (one a core) or more")
        not_negative("data", self, "min_document_characters", "mlm_probability_steps")
        check(
            self.dynamic_masking or not self.mlm_probability_to,
            where="data.mlm_probability_to",
            found=self.mlm_probability_to,
            expected="0, without data.dynamic_masking",
        )
        not_negative("data", self, "split_documents", expected="0 (never) or more")
        _check_lengths(self)
        _check_shares(self)
        _check_objective(self)
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
        # In diffusion each position has its own place among the predictions.
        data.max_predictions_per_seq < data.max_seq_length or data.objective == "diffusion",
        where="data.max_predictions_per_seq",
        found=data.max_predictions_per_seq,
        expected=f"less than data.max_seq_length ({data.max_seq_length})",
    )
    # With fewer masked positions, less than mlm_probability of a full row would be masked.
    ordinary_tokens = data.max_seq_length - SPECIAL_TOKENS_PER_PAIR
    highest = max(data.mlm_probability, data.mlm_probability_to)
    min_predictions = int(highest * ordinary_tokens)
    check(
        data.max_predictions_per_seq >= min_predictions,
        where="data.max_predictions_per_seq",
        found=data.max_predictions_per_seq,
        expected=f"at least {min_predictions}, data.mlm_probability of a row"
        " (or a lower data.mlm_probability)",
    )


def _check_shares(data: DataConfig) -> None:
    shares = data.mask_shares
    in_range = all(0 <= share <= 1 for share in shares)
    check(
        # Three numbers of decimals, such as 0.7, 0.2 and 0.1, add up to 1 but for their rounding.
        len(shares) == 3 and in_range and abs(sum(shares) - 1) < 1e-9,
        where="data.mask_shares",
        found=shares,
        expected="three numbers from 0 to 1 whose sum is 1",
    )


def _check_objective(data: DataConfig) -> None:
    """Check that the other fields are those that diffusion and causal rows need."""
    needed: dict[str, object] = {}
    cause = ""
    if data.objective == "diffusion":
        cause = "data.objective diffusion"
        needed = {
            "dynamic_masking": True,
            # The bound holds for tokens that are masked one by one, and by [MASK] alone.
            "masking": "token",
            "mask_shares": (1.0, 0.0, 0.0),
            "mlm_probability_to": 0.0,
            "max_predictions_per_seq": data.max_seq_length,
            "causal_share": 0.0,
        }
    elif data.causal_share:
        cause = f"data.causal_share {data.causal_share}"
        needed = {
            "dynamic_masking": True,
            # [CLS] sees no other token of a causal row.
            "sentence_objective": "none",
            "max_predictions_per_seq": data.max_seq_length - 1,
        }
    must_equal("data", data, f"for {cause}", **needed)


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


def causal_count(share: float, rows: int) -> int:
    """Return how many of a batch's rows are causal where `share` of them are to be."""
    return round(share * rows)


def without_places(data: DataConfig) -> DataConfig:
    """Return `data` without its folders, on which no compiled program depends."""
    names = tuple(f"{name}=." for name in mixture_folders(data.mixture))
    return replace(data, prepared_dir="", mixture=names)


def mixture_folders(mixture: Iterable[str]) -> dict[str, str]:
    """Return the folders of `DataConfig.mixture`, whose entries are NAME=FOLDER, by name."""
    folders = {}
    for entry in mixture:
        # At the first = alone: a folder's path may have one too.
        name, _, folder = entry.partition("=")
        folders[name] = folder
    return folders


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
