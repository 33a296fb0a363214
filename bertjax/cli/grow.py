"""`bertjax grow RUN --to NEW_RUN [--max-seq-length N] [--new-tokens FILE] [--word-vectors FILE]`"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import ModelConfig
from bertjax.errors import check

if TYPE_CHECKING:
    import numpy as np
    from etils import epath

    from bertjax.data.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class GrowCommand:
    """Make a new run from a run's model: with longer inputs, more words, or words with vectors from
    a file.
    """

    to: str = ""
    """Folder of the new run."""
    max_seq_length: int = 0
    """Ids in the longest input from now on; 0: as before."""
    positions: Literal["tile", "interpolate"] = "tile"
    """The new positions: the learned ones repeated (inputs of the old lengths give the same bits),
    or stretched.
    """
    new_tokens: str = ""
    """A file of new vocabulary entries, a whole word a line (WordPiece only)."""
    new_rows: Literal["mean", "pieces"] = "pieces"
    """Their embeddings: the mean of all entries, or of the pieces that the word was before."""
    vocab_multiple: int = 1
    """Where the table of embeddings grows, its rows are a multiple of this; 128 suits a TPU."""
    word_vectors: str = ""
    """A file of GloVe or word2vec vectors, as wide as the model's embeddings; its words' embeddings
    become these.
    """
    word_vectors_format: Literal["auto", "glove", "word2vec", "word2vec-binary"] = "auto"
    """What that file is."""


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "grow", "a run or checkpoint folder")
    command = parse("grow RUN", GrowCommand(), rest)
    check(command.to != "", where="--to", found="nothing", expected="a folder for the new run")
    asked = command.max_seq_length or command.new_tokens or command.word_vectors
    check(
        asked,
        where="bertjax grow",
        found="nothing to do",
        expected="--max-seq-length, --new-tokens or --word-vectors",
    )
    check(
        command.vocab_multiple > 0,
        where="--vocab-multiple",
        found=command.vocab_multiple,
        expected="a number above 0",
    )
    quiet_libraries()
    from etils import epath

    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.training.saved_model import check_new, load_model, save_model

    check_new(epath.Path(command.to))
    loaded = load_model(subject)
    folder = loaded.run_dir / "tokenizer"
    tokenizer = (
        load_tokenizer(folder)
        if folder.exists() or command.new_tokens or command.word_vectors
        else None
    )
    model, params, tokenizer, said = grow(
        loaded.config.model, loaded.params, tokenizer, folder, command
    )
    config = dataclasses.replace(loaded.config, model=model)
    facts = {"grown_from": str(loaded.checkpoint), "grown": said}
    saved = save_model(command.to, config, params, tokenizer, facts)
    print("\n".join([f"from: {loaded.checkpoint}", *said, f"checkpoint: {saved}"]))
    return 0


def grow(
    config: ModelConfig,
    params: Any,
    tokenizer: "Tokenizer | None",
    folder: "epath.Path",
    command: GrowCommand,
) -> tuple[ModelConfig, Any, "Tokenizer | None", list[str]]:
    """What `command` asks for, in the order length, entries, vectors, with a line on each.

    `tokenizer`, which is saved in `folder`, may be missing where neither entries nor vectors are
    asked for.
    """
    from bertjax.interop.extend import extend as growing

    said = []
    if command.max_seq_length:
        before = config.max_length
        config, params = growing.extend_positions(
            config, params, command.max_seq_length, command.positions
        )
        made = {"tile": "tiled", "interpolate": "interpolated"}[command.positions]
        said.append(f"positions: {before:,} before, {config.max_length:,} now, {made}")
    if tokenizer is not None and command.new_tokens:
        entries, rows = tokenizer.vocab_size, config.vocab_size
        words = growing.read_new_words(command.new_tokens)
        extended, pieces = (
            growing.extend_tokenizer(folder, words, command.new_tokens),
            growing.encode_words(tokenizer, words),
        )
        how, multiple = command.new_rows, command.vocab_multiple
        config, params = growing.extend_vocabulary(
            config, params, tokenizer, pieces, how, multiple=multiple
        )
        said += [
            f"vocabulary: {entries:,} entries before, {extended.vocab_size:,} now, new rows by {how}; "
            f"{sum(tokenizer.unk_id in ids for ids in pieces):,} of the new were [UNK] before",
            f"rows of the table: {rows:,} before, {config.vocab_size:,} now",
        ]
        tokenizer = extended
    if tokenizer is not None and command.word_vectors:
        known = growing.whole_words(tokenizer)
        vectors = read_vectors(command, known, config.embedding_width, tokenizer.lowercase)
        config, params, found = growing.init_word_vectors(config, params, known, vectors)
        said.append(
            f"word vectors: {found:,} of {len(known):,} whole words found in {command.word_vectors}"
        )
    return config, params, tokenizer, said


def read_vectors(
    command: GrowCommand, words: Collection[str], width: int, lowercase: bool
) -> "dict[str, np.ndarray]":
    """The vectors of `words`, with a progress bar."""
    from bertjax.interop.extend.word_vectors import read_word_vectors
    from bertjax.report.terminal import terminal_progress

    path, kind = command.word_vectors, command.word_vectors_format
    with terminal_progress() as progress:
        return read_word_vectors(
            path, words, width, file_format=kind, lowercase=lowercase, progress=progress
        )
