"""A larger model made of a run's: longer inputs, more words, or words with vectors from a file."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from etils import epath

from bertjax.config import Config
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.interop.extend import extend
from bertjax.interop.extend.extend import EmbeddingMethod, PositionMethod
from bertjax.interop.extend.word_vectors import VectorFormat, read_word_vectors
from bertjax.model.functional import Params
from bertjax.progress import Progress, silent
from bertjax.training.saved_model import TOKENIZER, check_new, load_model, save_model


@dataclass(frozen=True)
class GrowOptions:
    """Changes to a model; those that are not asked for are left out."""

    max_seq_length: int = 0
    """Ids in the longest input from now on; 0: as before."""
    positions: PositionMethod = "tile"
    """Vectors of the new positions: the learned ones repeated, or stretched."""
    new_tokens: str = ""
    """A file of new vocabulary entries, a whole word a line."""
    new_rows: EmbeddingMethod = "pieces"
    """Their embeddings: the mean of all entries, or of the pieces that the word was before."""
    vocab_multiple: int = 1
    """The number of embeddings, where it grows, is a multiple of this."""
    word_vectors: str = ""
    """A file of GloVe or word2vec vectors, as wide as the model's embeddings."""
    word_vectors_format: VectorFormat = "auto"
    """Format of that file."""


class Grown(NamedTuple):
    """A new run with a larger model."""

    checkpoint: epath.Path
    source: epath.Path
    """The checkpoint that it was made of."""
    changes: list[str]
    """A line on each change."""


class _Model(NamedTuple):
    """A model between two changes."""

    config: Config
    params: Params
    tokenizer: Tokenizer | None


def grow_model(
    path: epath.PathLike,
    run_dir: epath.PathLike,
    options: GrowOptions,
    *,
    progress: Progress = silent,
) -> Grown:
    """Make the new run `run_dir` of a run's or checkpoint's model, changed as `options` ask.

    The order is positions, vocabulary, word vectors. The tokenizer is kept, and may be missing
    where neither words nor vectors are asked for. Raises `UserError` for an option that the model
    cannot follow, a file that cannot be read, and a `run_dir` that has files in it; then nothing is
    written.
    """
    check_new(epath.Path(run_dir))
    source = load_model(path)
    folder = source.run_dir / TOKENIZER
    # A run without a tokenizer can still grow in length; asking for its tokenizer is an error.
    needs_tokenizer = bool(options.new_tokens or options.word_vectors)
    tokenizer = source.tokenizer if folder.exists() or needs_tokenizer else None
    model = _Model(source.config, source.params, tokenizer)
    changes: list[str] = []
    if options.max_seq_length:
        model = _with_positions(model, options, changes)
    if options.new_tokens:
        model = _with_words(model, folder, options, changes)
    # After the vocabulary: the file may have vectors of the new words too.
    if options.word_vectors:
        model = _with_vectors(model, options, changes, progress)
    facts = {"grown_from": str(source.checkpoint), "grown": changes}
    checkpoint = save_model(run_dir, model.config, model.params, model.tokenizer, facts)
    return Grown(checkpoint, source.checkpoint, changes)


def _with_positions(model: _Model, options: GrowOptions, changes: list[str]) -> _Model:
    before = model.config.model
    after, params = extend.extend_positions(
        before, model.params, options.max_seq_length, options.positions
    )
    how = {"tile": "tiled", "interpolate": "interpolated"}[options.positions]
    changes.append(f"positions: {before.max_length:,} before, {after.max_length:,} now, {how}")
    return model._replace(config=dataclasses.replace(model.config, model=after), params=params)


def _with_words(
    model: _Model, folder: epath.Path, options: GrowOptions, changes: list[str]
) -> _Model:
    tokenizer, before = model.tokenizer, model.config.model
    assert tokenizer is not None  # it is loaded where words are asked for
    words = extend.read_new_words(options.new_tokens)
    extended = extend.extend_tokenizer(folder, words, options.new_tokens)
    # By the old tokenizer: the new one encodes each word as one id.
    pieces = extend.encode_words(tokenizer, words)
    after, params = extend.extend_vocabulary(
        before,
        model.params,
        tokenizer,
        pieces,
        options.new_rows,
        multiple=options.vocab_multiple,
    )
    unknown = sum(tokenizer.unk_id in ids for ids in pieces)
    changes.append(
        f"vocabulary: {tokenizer.vocab_size:,} entries before, {extended.vocab_size:,} now, "
        f"new rows by {options.new_rows}; {unknown:,} of the new were [UNK] before"
    )
    changes.append(f"rows of the table: {before.vocab_size:,} before, {after.vocab_size:,} now")
    return _Model(dataclasses.replace(model.config, model=after), params, extended)


def _with_vectors(
    model: _Model, options: GrowOptions, changes: list[str], progress: Progress
) -> _Model:
    tokenizer = model.tokenizer
    assert tokenizer is not None  # it is loaded where vectors are asked for
    words = extend.whole_words(tokenizer)
    vectors = read_word_vectors(
        options.word_vectors,
        words,
        model.config.model.embedding_width,
        file_format=options.word_vectors_format,
        lowercase=tokenizer.lowercase,
        progress=progress,
    )
    config, params, count = extend.init_word_vectors(
        model.config.model, model.params, words, vectors
    )
    changes.append(
        f"word vectors: {count:,} of {len(words):,} whole words found in {options.word_vectors}"
    )
    return model._replace(config=dataclasses.replace(model.config, model=config), params=params)
