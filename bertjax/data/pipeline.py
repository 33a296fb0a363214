"""Batches from prepared shards, by tf.data, but for a run's first: the only way from disk to the
training step.
"""

import atexit
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data.order import batch_rows, mixture_rows, quotas_of
from bertjax.data.records import record_format as shards
from bertjax.data.records.manifest import WORK, Manifest, read_manifest
from bertjax.data.records.reader import ForeignRecords, OurShards, foreign_paths
from bertjax.data.records.record_format import Schema
from bertjax.errors import check, require_package
from bertjax.masking.static import unmask
from bertjax.types import Batch

Records = OurShards | ForeignRecords
Stream = Generator[Batch, None, None]
Rows = slice | np.ndarray  # of a global batch: the numbers of those wanted

_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    """A stream still open when the interpreter ends waits for reads that Python runs no more: a
    hang or an abort.
    """
    for stream in list(_streams):
        stream.close()


def open_split(
    config: Config, folder: epath.PathLike, split: str, tokenizer_fingerprint: str
) -> Records:
    """The records of `train` or `validation` in a prepared folder.

    Raises `UserError` when the folder has none, or what it has was made with another length,
    another number of predictions or another tokenizer, or has an id outside the model's vocabulary.
    """
    folder = epath.Path(folder)
    check(
        folder.exists(),
        where=f"data.prepared_dir {folder}",
        found="no such folder",
        expected="prepared shards (bertjax prepare)",
    )
    manifest = read_manifest(folder)
    if manifest is not None:
        _check_fits(folder, manifest, split, config, tokenizer_fingerprint)
        records: Records = OurShards(folder, manifest, split, skip_damaged=config.data.skip_damaged)
    else:
        started = (folder / WORK).exists()
        check(
            not started,
            where=str(folder),
            found="an unfinished preparation",
            expected="a finished one: run bertjax prepare again",
        )
        records = ForeignRecords(
            foreign_paths(folder, split), shards.schema_of(config.data, "validation")
        )
    check(
        len(records) > 0,
        where=f"{folder}, split {split}",
        found="no records",
        expected="one or more",
    )
    bound = config.model.vocab_size
    check(
        records.max_id < bound,
        where=str(folder),
        found=f"the id {records.max_id}",
        expected=f"ids below model.vocab_size ({bound})",
    )
    return records


def shares(config: Config, sizes: Sequence[int]) -> np.ndarray:
    """The quotas of a mixture of corpora with so many rows: by `mixture_weights`, else by size and
    exponent.
    """
    given = config.data.mixture_weights
    return quotas_of(given or [size**config.data.mixture_exponent for size in sizes])


def train_batches(
    corpora: Sequence[Records],
    config: Config,
    starts_word: np.ndarray,
    start_step: int,
    *,
    rows: Rows = slice(None),
) -> Iterator[Batch]:
    """This host's `rows` of every global batch from `start_step` (0-based) on, without end.

    Of several corpora the batches are mixed, and `corpus_ids` [B, 1] says where each row is from.
    With `dynamic_masking` the rows are not masked, and where whole words matter `word_starts`
    [B, L] says where one begins, by `starts_word` bool [vocab_size] if the records do not.
    """
    size, sizes = config.train.batch_size, [len(records) for records in corpora]
    quotas = shares(config, sizes)

    def read(step: int) -> Batch:
        if len(corpora) == 1:
            batch = corpora[0].read(batch_rows(sizes[0], size, step, config.seed)[rows])
        else:
            batch = _read_mixed(
                corpora, *(x[rows] for x in mixture_rows(sizes, quotas, size, step, config.seed))
            )
        return _for_the_step(batch, config, starts_word)

    names = _for_the_step(_no_rows(corpora[0].schema, len(corpora) > 1), config, starts_word)
    return _closed_at_exit(_stream(config, read, list(names), start_step, 2**62))


def eval_batches(
    records: Records, config: Config, *, rows: Rows = slice(None), max_batches: int = 0
) -> Iterator[Batch]:
    """This host's `rows` of batches that hold every record once, in order; the first `max_batches`
    if not 0.

    Rows of zeros fill up the last.
    """
    size = config.train.batch_size
    batches = -(-len(records) // size)

    def read(number: int) -> Batch:
        wanted = np.arange(number * size, (number + 1) * size)[rows]
        found = records.read(wanted[wanted < len(records)])
        missing = len(wanted) - len(found["input_ids"])
        return {
            name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for name, x in found.items()
        }

    names = [name for name in records.schema.lengths if name != "word_starts"]
    return _closed_at_exit(_stream(config, read, names, 0, min(batches, max_batches or batches)))


def _read_mixed(corpora: Sequence[Records], which: np.ndarray, rows: np.ndarray) -> Batch:
    parts = [(np.flatnonzero(which == number), records) for number, records in enumerate(corpora)]
    read = [(here, records.read(rows[here])) for here, records in parts]
    batch = {"corpus_ids": which[:, None].astype(np.int32)}
    for name in read[0][1]:
        batch[name] = np.empty((len(rows), *read[0][1][name].shape[1:]), read[0][1][name].dtype)
        for here, part in read:
            batch[name][here] = part[name]
    return batch


def _for_the_step(batch: Batch, config: Config, starts_word: np.ndarray) -> Batch:
    """Without what the training step has no use for, with what it wants."""
    given = batch.pop("word_starts", None)
    if not config.data.dynamic_masking:
        return batch
    if "masked_lm_ids" in batch:
        batch = unmask(batch)
    if config.data.masking != "token":
        starts = starts_word[batch["input_ids"]] if given is None else given
        batch["word_starts"] = starts.astype(np.int32)
    return batch


def _no_rows(schema: Schema, mixed: bool) -> Batch:
    batch = {
        name: np.zeros((0, length), shards.kind_of(name)) for name, length in schema.lengths.items()
    }
    return batch | {"corpus_ids": np.zeros((0, 1), np.int32)} if mixed else batch


def _check_fits(
    folder: epath.Path, manifest: Manifest, split: str, config: Config, fingerprint: str
) -> None:
    schema, wanted = manifest.schemas[split], shards.schema_of(config.data, "validation")
    masked = schema.max_predictions_per_seq > 0
    expected = "masked ones, or data.dynamic_masking True"
    check(
        masked or config.data.dynamic_masking,
        where=f"{folder}, split {split}",
        found="rows that are not masked",
        expected=expected,
    )
    static = (
        not config.data.dynamic_masking
    )  # else held-out rows keep the masks that they were given
    settings = manifest.settings["data"]
    for name in (
        "sentence_objective",
        "cross_documents",
        *(("masking", "mlm_probability") if static else ()),
    ):
        found, expected = settings[name], getattr(config.data, name)
        check(
            found == expected,
            where=f"{folder}: {name}",
            found=f"{found} in the shards",
            expected=f"{expected} as data.{name} says",
        )
    names = {
        "max_seq_length": "max_seq_length",
        "sentences": "max_sequences_per_row",
        "packed": "max_sequences_per_row",
    }
    if static:
        names["max_predictions_per_seq"] = "max_predictions_per_seq"
    for name, option in names.items():
        found, expected = getattr(schema, name), getattr(wanted, name)
        check(
            found == expected,
            where=f"{folder}: {name}",
            found=f"{found} in the shards",
            expected=f"{expected} as data.{option} says",
        )
    made_with = manifest.tokenizer_fingerprint
    check(
        made_with == fingerprint,
        where=f"{folder}: tokenizer",
        found=made_with[:12],
        expected=f"{fingerprint[:12]}, that of this run",
    )


def _closed_at_exit(stream: Stream) -> Stream:
    _streams.add(stream)
    return stream


@lru_cache(maxsize=1)
def _tensorflow() -> "Future[Any]":
    """TensorFlow, once a thread has imported it: that takes seconds, in which steps are compiled
    and taken.
    """

    def load() -> Any:
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)  # they are JAX's
        return tf

    return ThreadPoolExecutor(1).submit(load)


def _stream(
    config: Config, read: Callable[[int], Batch], names: list[str], start: int, stop: int
) -> Stream:
    # A thread imports it, after the first batch: better refused here than at the second step.
    require_package("tensorflow", extra="data")
    return _batches(config, read, names, start, stop)


def _batches(
    config: Config, read: Callable[[int], Batch], names: list[str], start: int, stop: int
) -> Stream:
    """`read(start)`, `read(start + 1)`, …: by tf.data as soon as TensorFlow is there, till then one
    at a time.
    """
    while start < stop:
        yield read(start)
        start += 1
        if (
            tensorflow := _tensorflow()
        ).done():  # asked for after the first: so that a run's first step need not wait
            break
    if start < stop:
        yield from _read_ahead(tensorflow.result(), config, read, names, start, stop)


def _read_ahead(
    tf: Any, config: Config, read: Callable[[int], Batch], names: list[str], start: int, stop: int
) -> Stream:
    """`read(start)`, `read(start + 1)`, … by tf.data: in order, several at once, ahead of their
    use.
    """
    failed = (
        tf.errors.OpError
    )  # held here: at interpreter exit the module is gone before the generator
    kinds = [tf.float32 if name in shards.FLOATS else tf.int32 for name in names]
    failures: list[BaseException] = []

    def call(number: np.ndarray) -> list[np.ndarray]:
        try:
            batch = read(int(number))
        except BaseException as error:
            failures.append(error)  # TensorFlow would pass on its text only
            raise
        return [batch[name] for name in names]

    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 2
    dataset = tf.data.Dataset.range(start, stop).map(
        lambda number: tf.numpy_function(call, [number], kinds),
        num_parallel_calls=2,
        deterministic=True,
    )
    dataset = dataset.prefetch(config.train.prefetch_batches).with_options(options)
    try:
        for values in dataset.as_numpy_iterator():
            yield dict(zip(names, values, strict=True))
    except failed:
        raise failures[0] if failures else RuntimeError("the input pipeline failed") from None
