"""Evaluate a run on text that was not prepared: masked bits per byte."""

from collections import Counter
from collections.abc import Iterator, Sequence

from etils import epath

from bertjax.api.results import EvaluationResult
from bertjax.config import DataConfig
from bertjax.data.corpus.sources import find_sources
from bertjax.data.corpus.work_units import make_work_units, read_documents
from bertjax.errors import check
from bertjax.inference.bits_per_byte import MaskedBits, is_causal, masked_bits_of_each
from bertjax.progress import Progress, silent
from bertjax.training.saved_model import Network, load_network


def evaluate_text(
    path: epath.PathLike,
    corpus: Sequence[str],
    *,
    network: Network = "model",
    max_seq_length: int | None = None,
    progress: Progress = silent,
) -> EvaluationResult:
    """Compute masked bits per byte (`masked_bits`) of texts with a run or one checkpoint.

    `corpus` names what `data.corpus` can name: files, folders, patterns. Each document is a text,
    read and cleaned as `prepare` reads it. The rows have `max_seq_length` ids (None: as long as
    those of the run's data, if the model has the positions). `network` is the model, or the
    generator of a run with replaced tokens, whose model predicts no words.

    The metrics are `masked_bits_per_byte`; `texts`, `words` (masked ones), `pieces` and `bytes`
    that it is of; `unspelled_bytes`, the share of the bytes that are in unknown pieces or in none.
    Of a run whose rows are all causal the first has the name `causal_bits_per_byte`. Raises
    `UserError` for a model without a head for masked words, and for text that cannot be read.

    >>> import bertjax
    >>> result = bertjax.evaluate_text("runs/tiny", ["corpus.txt"])
    >>> result.metrics["masked_bits_per_byte"] > 0
    True
    """
    model = load_network(path, network)
    if max_seq_length is None:
        max_seq_length = min(model.config.data.max_seq_length, model.config.model.max_length)
    total = MaskedBits()
    for bits in masked_bits_of_each(model, _documents(corpus), max_seq_length, progress):
        total += bits
    check(
        total.bytes > 0,
        where=", ".join(corpus),
        found="no word",
        expected="a text with one word or more",
    )
    name = "causal_bits_per_byte" if is_causal(model) else "masked_bits_per_byte"
    metrics = {
        name: total.bits_per_byte,
        "texts": total.texts,
        "words": total.words,
        "pieces": total.pieces,
        "bytes": total.bytes,
        "unspelled_bytes": total.unspelled_bytes / total.bytes,
    }
    return EvaluationResult(model.checkpoint, metrics)


def _documents(corpus: Sequence[str]) -> Iterator[str]:
    """Yield the text of each document, a sentence a line."""
    config = DataConfig(corpus=tuple(corpus))
    sources = find_sources(config)
    for source in sources:
        check(
            # Rows of a database become a file where `prepare` works, which this does not have.
            source.format != "sql",
            where=source.name,
            found="a database",
            expected="files of text",
        )
    for unit in make_work_units(sources):
        for sentences in read_documents(unit, config, Counter()):
            yield "\n".join(sentences)
