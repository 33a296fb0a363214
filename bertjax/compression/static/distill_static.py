"""A table of word vectors from an encoder, by the method of `model2vec`.

Every piece of the vocabulary is computed alone; principal components make the vectors smaller, and
weights by frequency make them say less where pieces are frequent. The vector of a text is the mean
of those of its pieces, so nothing of the encoder is computed any more.
"""

import logging
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from bertjax.compression.card import Card, write_card
from bertjax.compression.rated_pairs import read_pairs
from bertjax.compression.source_model import as_run, version_of_source
from bertjax.compression.static.imported import pooling_of, say_what_is_missing
from bertjax.compression.static.measured import measured_card
from bertjax.compression.static.options import DIMENSIONS, StaticOptions
from bertjax.compression.static.piece_vectors import meant_pieces, piece_vectors
from bertjax.compression.static.table_files import LAST, names_in_engine, write_table
from bertjax.compression.static.weighting import (
    counted,
    principal_components,
    sif_weights,
    zipf_probabilities,
)
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.given_files import place_of
from bertjax.inference.embed import Pooling
from bertjax.inference.static_table import WEIGHTS, StaticTable, read_static_table
from bertjax.inference.vector_files import STDIN, read_lines
from bertjax.interop.import_model import is_external
from bertjax.progress import Progress, silent
from bertjax.storage import exact_version_of
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.training.saved_model import TrainedModel, load_model

log = logging.getLogger("bertjax")


class StaticFacts(NamedTuple):
    """What `distill_static` did."""

    source: epath.Path
    """The teacher: a checkpoint, or a model folder of another program."""
    folder: epath.Path
    pieces: int
    """Number of entries of the vocabulary: rows of the table."""
    zeros: int
    """How many of them mean nothing in a text, and have a vector of zeros."""
    dimensions: int
    """Numbers in a vector."""
    components: int
    """How many of them are principal components: all or 0."""
    explained: float
    """Share of the variance that the principal components keep."""
    pooling: str
    bytes: int
    """Size of the file of the table."""
    card: Card | None
    """What was measured; None without `sts`."""
    seconds: float


class _Table(NamedTuple):
    """A table that was computed."""

    vectors: np.ndarray
    """float32 [V, D]."""
    components: int
    """Number of principal components; 0: the vectors are none."""
    explained: float
    zeros: int
    pooling: Pooling


def distill_static(
    run: epath.PathLike,
    to: epath.PathLike,
    *,
    dimensions: int | None = None,
    pooling: str = "",
    corpus: str = "",
    sif_coefficient: float = 1e-4,
    sts: str = "",
    max_loss: str = "",
    seconds: float = 1.0,
    license: str = "",
    progress: Progress = silent,
) -> StaticFacts | None:
    """Make a table of word vectors of a model in the new folder `to`.

    `run` is a run, a checkpoint, or a model folder of `transformers`. Returns None where the same
    call made the folder before. The options are those of `StaticOptions`. `sentence-transformers`
    reads the folder as `SentenceTransformer(folder)`, `model2vec` as
    `StaticModel.from_pretrained(folder)`, and `bertjax.embed` too.

    Special tokens and `[unused12]` have vectors of zeros: they mean nothing in a text. So an
    unknown word, which is `[UNK]`, does not change the direction of a text's vector.

    Raises `UserError` if the options do not fit the model, if other programs would read other ids
    from the tokenizer, if the corpus has none of its pieces, or if `to` has other files; and
    `BoundError` if the table loses more than `max_loss`. Nothing is left in `to` then.

    >>> import bertjax
    >>> facts = bertjax.distill_static("runs/tiny", "static/tiny", dimensions=8)
    >>> bertjax.embed("static/tiny", ["the dog sees the cat.", "no one."]).shape
    (2, 8)
    """
    options = StaticOptions(
        dimensions, pooling, corpus, sif_coefficient, sts, max_loss, seconds, license
    )
    path = place_of(to)
    origin = place_of(run)
    request = _request(origin, options)
    # Before the model is loaded.
    with folder_written_whole(path, "distill", request, last=LAST) as part:
        if part is None:
            return None
        begin = time.monotonic()
        with as_run(origin, Path(part) / "imported") as run_dir:
            model = load_model(run_dir)
            source = origin if is_external(origin) else model.checkpoint
            table = _computed(model, options, progress)
            write_table(
                part,
                model.tokenizer,
                table.vectors,
                dimensions=table.components,
                sif_coefficient=options.sif_coefficient,
            )
            _check_written(part, table.vectors)
            card = _card(model, source, part, table, options)
    return StaticFacts(
        source=source,
        folder=path,
        pieces=len(table.vectors),
        zeros=table.zeros,
        dimensions=table.vectors.shape[1],
        components=table.components,
        explained=table.explained,
        pooling=table.pooling,
        card=card,
        bytes=(path / WEIGHTS).stat().length,
        seconds=time.monotonic() - begin,
    )


def _request(origin: epath.Path, options: StaticOptions) -> str:
    """Return the digest of the command; that of a stream, which can be read once, is its own."""
    corpus = ""
    if options.corpus == STDIN:
        corpus = uuid.uuid4().hex
    elif options.corpus:
        file = place_of(options.corpus)
        check(file.exists(), where=str(file), found="no file", expected="texts, one a line")
        corpus = exact_version_of(file)
    pairs = ""
    if options.sts:
        file = place_of(options.sts)
        # Before the forward passes, which take longer.
        read_pairs(file)
        pairs = exact_version_of(file)
    return request_digest(
        "distill --static",
        source=version_of_source(origin),
        options=vars(options),
        corpus=corpus,
        pairs=pairs,
    )


def _computed(model: TrainedModel, options: StaticOptions, progress: Progress) -> _Table:
    """Return the table of a teacher."""
    tokenizer = model.tokenizer
    pooling = pooling_of(model, options.pooling)
    say_what_is_missing(model)
    ids = np.flatnonzero(meant_pieces(tokenizer))
    check(
        len(ids) > 0,
        where=str(model.run_dir / "tokenizer"),
        found="special tokens alone",
        expected="pieces of text",
    )
    dimensions = _dimensions(options.dimensions, len(ids), model.config.model.hidden_size)
    # Before the forward passes, which take longer.
    weights = sif_weights(_probabilities(tokenizer, ids, options.corpus), options.sif_coefficient)
    vectors = piece_vectors(model, ids, pooling, progress=progress)
    check(
        bool(np.isfinite(vectors).all()),
        where=str(model.checkpoint),
        found="a vector that is not finite",
        expected="finite numbers",
    )
    explained = 1.0
    if dimensions:
        vectors, explained = principal_components(vectors, dimensions)
    rows = np.zeros((tokenizer.vocab_size, vectors.shape[1]), np.float32)
    rows[ids] = vectors * weights[:, None]
    return _Table(rows, dimensions, explained, len(rows) - len(ids), pooling)


def _card(
    model: TrainedModel,
    source: epath.Path,
    part: epath.Path,
    table: _Table,
    options: StaticOptions,
) -> Card | None:
    """Measure the table and write its card; None where there is nothing to measure it on."""
    if not options.sts:
        return None
    settings = {
        "dimensions": table.components,
        "pooling": table.pooling,
        "corpus": options.corpus,
        "sif_coefficient": options.sif_coefficient,
        "sts": options.sts,
    }
    card = measured_card(
        model,
        source,
        part,
        pooling=table.pooling,
        sts=options.sts,
        max_loss=options.bound,
        seconds=options.seconds,
        license=options.license,
        settings={name: value for name, value in settings.items() if value != ""},
    )
    write_card(part, card)
    return card


def _dimensions(asked: int | None, pieces: int, width: int) -> int:
    """Return the number of principal components; 0: none are computed."""
    # n points differ along n - 1 directions.
    most = min(width, pieces - 1)
    if asked is None:
        return min(DIMENSIONS, most)
    check(
        asked <= most,
        where="dimensions",
        found=asked,
        expected=f"at most {most}: the teacher's vectors have {width} numbers, of {pieces} pieces",
    )
    return asked


def _probabilities(tokenizer: Tokenizer, ids: np.ndarray, corpus: str) -> np.ndarray:
    """Return the probability of each piece of `ids`; float64 [n]."""
    if not corpus:
        return zipf_probabilities(len(ids))
    counts = counted(tokenizer, read_lines(corpus))[ids]
    total = counts.sum()
    check(
        total > 0,
        where=corpus,
        found="no piece of the vocabulary",
        expected="texts of its language, one a line",
    )
    return counts / total


def _check_written(part: epath.Path, vectors: np.ndarray) -> None:
    """Read the table as other programs do; `UserError` unless it is the one that was computed."""
    table: StaticTable = read_static_table(part)
    check(
        np.array_equal(table.vectors, vectors),
        where=str(part / LAST),
        found="other numbers than were written",
        expected="the same",
    )
    names = names_in_engine(part)
    if names != len(vectors):
        log.warning(
            "model2vec does not read this table: the vocabulary has %d names for %d ids "
            "(sentence-transformers does)",
            names,
            len(vectors),
        )
