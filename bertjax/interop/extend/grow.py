"""Growth of a run's model: larger sizes, longer inputs, more words, or given word vectors."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from etils import epath

from bertjax.config import Config, ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.given_files import place_of
from bertjax.interop.extend import new_words, vocabulary
from bertjax.interop.extend.positions import (
    PositionMethod,
    change_rotary_bases,
    extend_positions,
    method_for,
)
from bertjax.interop.extend.sizes import Sizes, extend_sizes
from bertjax.interop.extend.vocabulary import EmbeddingMethod
from bertjax.interop.extend.word_vector_files import VectorFormat
from bertjax.interop.extend.word_vectors import read_word_vectors
from bertjax.model.functional import Params
from bertjax.progress import Progress, silent
from bertjax.storage import exact_version_of
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.training import checkpoint
from bertjax.training.saved_model import TOKENIZER, load_model, saved_checkpoint, write_model

# What the line of a change says of each method of new positions.
HOW = {
    "tile": "tiled",
    "interpolate": "interpolated",
    "keep": "by the same formula",
    "scale": "scaled",
}
CHANGES = "grown"  # field of the checkpoint's `meta` with a line of text for each change


@dataclass(frozen=True)
class GrowOptions:
    """Changes to a model; with the default options nothing changes."""

    sizes: Sizes = field(default_factory=Sizes)
    """Sizes that grow."""
    max_seq_length: int = 0
    """Number of ids in the longest input from now on; 0: as before."""
    positions: PositionMethod = "auto"
    """How positions are made for it: see `extend_positions`."""
    rotary_base: float = 0.0
    """Base of the rotary angles in global layers from now on; 0: as before."""
    rotary_base_local: float = 0.0
    """The same in layers with local attention."""
    new_tokens: str = ""
    """A file of new vocabulary entries, one whole word per line."""
    new_rows: EmbeddingMethod = "pieces"
    """Embedding of a new entry: the mean of all entries, or of the pieces that it was before."""
    vocab_multiple: int = 1
    """If the number of embeddings grows, it becomes a multiple of this."""
    word_vectors: str = ""
    """A file of GloVe or word2vec vectors, as wide as the model's embeddings."""
    word_vectors_format: VectorFormat = "auto"
    """Format of the file `word_vectors`."""


class Grown(NamedTuple):
    """A new run with a larger model."""

    checkpoint: epath.Path
    source: epath.Path
    """The checkpoint that the new run was made from."""
    changes: list[str]
    """One line of text for each change."""


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
    """Make the new run `run_dir` from a run's or a checkpoint's model, changed as `options` say.

    Sizes change first, then positions, then the vocabulary, then word vectors. The new run keeps
    the tokenizer. The old run needs one only if words or vectors are asked for. Raises `UserError`
    for an option that does not suit the model, for a file that cannot be read, and if `run_dir` has
    other files than this call would write; in these cases nothing is written.
    """
    run_dir = place_of(run_dir)
    _, found = checkpoint.find_checkpoint(path)
    files = {name: _version(name) for name in (options.new_tokens, options.word_vectors) if name}
    request = request_digest(
        "grow",
        source=checkpoint.version_of_checkpoint(found),
        options=dataclasses.asdict(options),
        files=files,
    )
    with folder_written_whole(run_dir, "grow", request, last=checkpoint.FOLDER) as part:
        if part is not None:
            _write_grown(found, part, options, progress)
    grown = saved_checkpoint(run_dir)
    return Grown(grown, found, list(checkpoint.read_meta(grown)[CHANGES]))


def _version(name: str) -> str:
    """Return what tells whether a file is still the same; nothing if it is not there."""
    path = place_of(name)
    return exact_version_of(path) if path.exists() else ""


def _write_grown(
    found: epath.Path, part: epath.Path, options: GrowOptions, progress: Progress
) -> None:
    """Write the run that is made from the checkpoint `found` into the empty folder `part`."""
    source = load_model(found)
    folder = source.run_dir / TOKENIZER
    # Without a tokenizer `source.tokenizer` is an error, but such a run can still grow in length.
    needs_tokenizer = bool(options.new_tokens or options.word_vectors)
    tokenizer = source.tokenizer if folder.exists() or needs_tokenizer else None
    model = _Model(source.config, source.params, tokenizer)
    changes: list[str] = []
    if options.sizes != Sizes():
        model = _with_sizes(model, options, changes)
    if options.max_seq_length:
        model = _with_positions(model, options, changes)
    if options.rotary_base or options.rotary_base_local:
        model = _with_rotary_bases(model, options, changes)
    if options.new_tokens:
        model = _with_words(model, folder, options, changes)
    # After the vocabulary, because the file may have vectors of the new words too.
    if options.word_vectors:
        model = _with_vectors(model, options, changes, progress)
    facts = {"grown_from": str(source.checkpoint), CHANGES: changes}
    write_model(part, model.config, model.params, model.tokenizer, facts)


def _with_sizes(model: _Model, options: GrowOptions, changes: list[str]) -> _Model:
    before = model.config.model
    after, params = extend_sizes(before, model.params, options.sizes)
    changes += _changed(before, after, [field.name for field in dataclasses.fields(Sizes)])
    return model._replace(config=dataclasses.replace(model.config, model=after), params=params)


def _with_positions(model: _Model, options: GrowOptions, changes: list[str]) -> _Model:
    before = model.config.model
    after, params = extend_positions(
        before, model.params, options.max_seq_length, options.positions
    )
    how = HOW[method_for(before, options.positions)]
    changes.append(f"positions: {before.max_length:,} before, {after.max_length:,} now, {how}")
    return model._replace(config=dataclasses.replace(model.config, model=after), params=params)


def _with_rotary_bases(model: _Model, options: GrowOptions, changes: list[str]) -> _Model:
    before = model.config.model
    after = change_rotary_bases(before, options.rotary_base, options.rotary_base_local)
    changes += _changed(before, after, ["rotary_base", "rotary_base_local"])
    return model._replace(config=dataclasses.replace(model.config, model=after))


def _changed(before: ModelConfig, after: ModelConfig, names: Sequence[str]) -> list[str]:
    """Return a line of text for each of these fields that has another value."""
    lines = []
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if new != old:
            lines.append(f"{name}: {old:,} before, {new:,} now")
    return lines


def _with_words(
    model: _Model, folder: epath.Path, options: GrowOptions, changes: list[str]
) -> _Model:
    tokenizer, before = model.tokenizer, model.config.model
    assert tokenizer is not None  # it is loaded if words are asked for
    words = new_words.read_new_words(options.new_tokens)
    extended = new_words.extend_tokenizer(folder, words, options.new_tokens)
    # The old tokenizer gives the pieces, because the new one encodes each word as one id.
    pieces = new_words.encode_words(tokenizer, words)
    after, params = vocabulary.extend_vocabulary(
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
    assert tokenizer is not None  # it is loaded if vectors are asked for
    words = new_words.whole_words(tokenizer)
    vectors = read_word_vectors(
        options.word_vectors,
        words,
        model.config.model.embedding_width,
        file_format=options.word_vectors_format,
        lowercase=tokenizer.lowercase,
        progress=progress,
    )
    config, params, count = vocabulary.init_word_vectors(
        model.config.model, model.params, words, vectors
    )
    changes.append(
        f"word vectors: {count:,} of {len(words):,} whole words found in {options.word_vectors}"
    )
    return model._replace(config=dataclasses.replace(model.config, model=config), params=params)
