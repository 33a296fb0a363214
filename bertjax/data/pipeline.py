"""Batches from prepared shards: the only way from disk to the train step.

The first batches are read directly; once TensorFlow is imported, tf.data reads ahead.
"""

import atexit
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig, to_dict
from bertjax.data.order import Reading, quotas_of, whole_run
from bertjax.data.records import record_format
from bertjax.data.records.foreign_files import check_all_named, foreign_paths
from bertjax.data.records.foreign_records import ForeignRecords
from bertjax.data.records.manifest import WORK, Manifest, read_manifest
from bertjax.data.records.reader import PreparedRecords
from bertjax.data.records.record_format import Schema
from bertjax.data.row_order import RowOrder
from bertjax.errors import check, require_package
from bertjax.given_files import place_of
from bertjax.masking.long_words import divide_long_words
from bertjax.masking.selection import Vocabulary
from bertjax.masking.static import unmask
from bertjax.types import Batch, RowIndices

Records = PreparedRecords | ForeignRecords
BatchReader = Callable[[int], Batch]
"""Function that reads one batch by its number: in training the step, else the batch's position."""
Stream = Generator[Batch, None, None]

ALL_ROWS = slice(None)
NO_END = 2**62  # stands for "no end", because `tf.data.Dataset.range` needs an end in int64
PARALLEL_READS = 2
"""Number of batches that tf.data reads at the same time."""


def open_split(
    config: Config, folder: epath.PathLike, split: str, tokenizer_fingerprint: str
) -> Records:
    """Open the records of a split, `train` or `validation`, of a prepared folder.

    Raises `UserError` if the folder has no records for the split, if they were made with another
    length, number of predictions or tokenizer, or if an id or a segment is outside the model's
    tables.
    """
    folder = place_of(folder)
    check(
        folder.exists(),
        where=f"data.prepared_dir {folder}",
        found="no such folder",
        expected="prepared shards (bertjax prepare)",
    )
    manifest = read_manifest(folder)
    records: Records
    if manifest is not None:
        _check_fits(folder, manifest, split, config, tokenizer_fingerprint)
        skip_damaged = config.data.skip_damaged
        records = PreparedRecords(folder, manifest, split, skip_damaged=skip_damaged)
    else:
        check(
            # Otherwise its shards so far would pass for files of another script.
            not (folder / WORK).exists(),
            where=str(folder),
            found="an unfinished preparation",
            expected="a finished one: run bertjax prepare again",
        )
        records = _open_foreign(config, folder, split)
    check(
        len(records) > 0,
        where=f"{folder}, split {split}",
        found="no records",
        expected="one or more",
    )
    if manifest is not None:
        check_all_named(folder, manifest)
    # A step does not notice such an id: a gather under jit raises no error.
    vocab_size = config.model.vocab_size
    check(
        records.max_id < vocab_size,
        where=str(folder),
        found=f"the id {records.max_id}",
        expected=f"ids below model.vocab_size ({vocab_size})",
    )
    type_vocab_size = config.model.type_vocab_size
    check(
        # A model without segments reads rows of one.
        records.max_segment < max(type_vocab_size, 1),
        where=f"{folder}: segment_ids",
        found=f"the segment {records.max_segment}",
        expected=f"segments below model.type_vocab_size ({type_vocab_size})",
    )
    return records


def _open_foreign(config: Config, folder: epath.Path, split: str) -> ForeignRecords:
    """Open the TFRecord files of another script that belong to the split."""
    # Other data scripts mask all records when they write them, also the training records.
    schema = record_format.schema_of(config.data, "validation")
    dynamic = config.data.dynamic_masking
    paths = foreign_paths(folder, split)
    check(
        len(paths) > 0,
        where=f"{folder}, split {split}",
        found="no records",
        expected="one or more (TFRecord files are held out by a word of their name, such as dev)",
    )
    records = ForeignRecords(paths, schema, any_predictions=dynamic)
    _check_masked(folder, split, records.schema, dynamic and split == "train")
    return records


def _check_masked(folder: epath.Path, split: str, schema: Schema, masked_later: bool) -> None:
    or_dynamic = ", or data.dynamic_masking True" if split == "train" else ""
    check(
        schema.max_predictions_per_seq > 0 or masked_later,
        where=f"{folder}, split {split}",
        found="rows that are not masked",
        expected=f"masked ones{or_dynamic}",
    )


def mixture_quotas(config: Config, sizes: Sequence[int]) -> np.ndarray:
    """Return each corpus's quota in a mixture, int64 with sum `BLOCK`; `sizes` counts its records.

    The quotas are proportional to `data.mixture_weights`. If these are not given, they are
    proportional to `size ** data.mixture_exponent`.
    """
    # An exponent below 1 gives small corpora more than their share of the rows.
    weights = config.data.mixture_weights or [size**config.data.mixture_exponent for size in sizes]
    return quotas_of(weights)


def row_order(corpora: Sequence[Records], config: Config, reading: Reading | None) -> RowOrder:
    """Return the order in which `train_batches` reads the records of the corpora."""
    sizes = tuple(len(records) for records in corpora)
    quotas = tuple(mixture_quotas(config, sizes).tolist())
    own = reading or whole_run(len(corpora))
    return RowOrder(sizes, quotas, own, config.train.batch_size, config.seed)


def train_batches(
    corpora: Sequence[Records],
    config: Config,
    starts_word: np.ndarray,
    start_step: int,
    *,
    row_indices: RowIndices = ALL_ROWS,
    vocabulary: Vocabulary | None = None,
    reading: Reading | None = None,
    end_step: int = NO_END,
) -> Iterator[Batch]:
    """Yield this process's rows of every global batch from `start_step` (0-based) to `end_step`.

    If there are several corpora, each batch is a mixture, and `corpus_ids` [B, 1] has the number of
    each row's corpus. With `dynamic_masking` the rows are not masked. Unless single tokens are
    masked, they then have `word_starts` [B, L], which is 1 at the first token of a word. If the
    records do not hold it, it is taken from `starts_word`, bool [vocab_size]. Words that are too
    long for `vocabulary` are divided; None: none is. `reading` says where in the corpora a phase of
    the run begins; None: it is the whole run. Without `end_step` there is no end.
    """
    order = row_order(corpora, config, reading)

    # The numbers are those of the global batch: every process draws the same and takes its own
    # rows.
    def read(step: int) -> Batch:
        which, record_numbers = order.batch(step)
        which, record_numbers = which[row_indices], record_numbers[row_indices]
        if len(corpora) == 1:
            batch = corpora[0].read(record_numbers)
            return _adapt_to_step(batch, config, starts_word, vocabulary)
        batch = {"corpus_ids": which[:, None].astype(np.int32)}
        for corpus, records in enumerate(corpora):
            here = np.flatnonzero(which == corpus)
            # Each part by itself: of one corpus the records may be masked, of another not.
            part = records.read(record_numbers[here])
            part = _adapt_to_step(part, config, starts_word, vocabulary)
            _put_rows(batch, here, part)
        return batch

    # tf.data must know the features before the first batch is read.
    empty = _empty_batch(corpora[0].schema)
    names = list(_adapt_to_step(empty, config, starts_word, vocabulary))
    if len(corpora) > 1:
        names.append("corpus_ids")
    return _closed_at_exit(_stream(config, read, names, start_step, end_step))


def eval_batches(
    records: Records, config: Config, *, row_indices: RowIndices = ALL_ROWS, max_batches: int = 0
) -> Iterator[Batch]:
    """Yield this process's rows of the batches of a split, which hold every record once, in order.

    At most `max_batches` batches are read; 0 means no limit. The last batch is filled up with rows
    of zeros.
    """
    batch_size = config.train.batch_size
    batch_count = -(-len(records) // batch_size)
    if max_batches:
        batch_count = min(batch_count, max_batches)

    def read(number: int) -> Batch:
        first = number * batch_size
        record_numbers = np.arange(first, first + batch_size)[row_indices]
        batch = records.read(record_numbers[record_numbers < len(records)])
        # Filled up, so that all batches have one shape and the program is compiled once.
        missing = len(record_numbers) - len(batch["input_ids"])
        return {name: np.pad(values, [(0, missing), (0, 0)]) for name, values in batch.items()}

    # Held-out rows keep their static masks, so the evaluation does not need `word_starts`.
    names = [name for name in records.schema.lengths if name != "word_starts"]
    return _closed_at_exit(_stream(config, read, names, 0, batch_count))


def _put_rows(batch: Batch, rows: np.ndarray, part: Batch) -> None:
    """Put the rows of `part` into those rows of the batch, which gets the features it lacks."""
    count = len(batch["corpus_ids"])
    for name, values in part.items():
        if name not in batch:
            batch[name] = np.empty((count, *values.shape[1:]), values.dtype)
        batch[name][rows] = values


def _adapt_to_step(
    batch: Batch, config: Config, starts_word: np.ndarray, vocabulary: Vocabulary | None
) -> Batch:
    """Drop the features that the train step does not use, and add those that it needs."""
    word_starts = batch.pop("word_starts", None)
    if not config.data.dynamic_masking:
        return batch
    if "masked_lm_ids" in batch:  # shards with static masks can be trained on with dynamic ones
        batch = unmask(batch)
    if config.data.masking != "token":
        if word_starts is None:
            word_starts = starts_word[batch["input_ids"]]
        if vocabulary is not None:
            word_starts = divide_long_words(word_starts > 0, batch["input_ids"], vocabulary)
        # As all features but weights, which `_read_ahead` declares to tf.data.
        batch["word_starts"] = word_starts.astype(np.int32)
    return batch


def _empty_batch(schema: Schema) -> Batch:
    """Make a batch with no rows that has the features of `schema`."""
    batch: Batch = {}
    for name, length in schema.lengths.items():
        batch[name] = np.zeros((0, length), record_format.feature_dtype(name))
    return batch


def _check_fits(
    folder: epath.Path, manifest: Manifest, split: str, config: Config, fingerprint: str
) -> None:
    """Raise `UserError` unless the shards were made with the settings of this run."""
    in_shards = manifest.schemas[split]
    _check_masked(folder, split, in_shards, config.data.dynamic_masking)
    # With dynamic masking, the settings of static masks need not agree: the training rows get new
    # masks, and the held-out rows may keep masks made with other settings.
    static = not config.data.dynamic_masking

    # No record tells these, unlike the lengths below.
    settings = ["sentence_objective", "cross_documents"]
    if static:
        settings += ["masking", "mlm_probability", "mask_shares"]
    # Folders that were prepared before a setting existed lack it.
    of_shards = to_dict(DataConfig()) | manifest.settings["data"]
    of_run = to_dict(config.data)
    for name in settings:
        _check_same(folder, name, name, of_shards[name], of_run[name])

    fields = {
        "max_seq_length": "max_seq_length",
        "sentences": "max_sequences_per_row",
        "packed": "max_sequences_per_row",
    }
    if static:
        fields["max_predictions_per_seq"] = "max_predictions_per_seq"
    # Of the held-out split: its schema has the predictions whether masks are static or not.
    in_run = record_format.schema_of(config.data, "validation")
    if split == "validation" and not in_shards.sentences:
        # Of one document no pairs are made; the masked words are evaluated all the same.
        del fields["sentences"]
    for name, option in fields.items():
        _check_same(folder, name, option, getattr(in_shards, name), getattr(in_run, name))

    made_with = manifest.tokenizer_fingerprint
    check(
        # Ids of another vocabulary would be trained on without an error.
        made_with == fingerprint,
        where=f"{folder}: tokenizer",
        found=made_with[:12],
        expected=f"{fingerprint[:12]}, that of this run",
    )


def _check_same(
    folder: epath.Path, name: str, option: str, in_shards: object, in_run: object
) -> None:
    """Raise `UserError` if the shards and the run differ in the setting `data.<option>`."""
    check(
        in_shards == in_run,
        where=f"{folder}: {name}",
        found=f"{in_shards} in the shards",
        expected=f"{in_run} as data.{option} says",
    )


def _closed_at_exit(stream: Stream) -> Stream:
    """Return the stream; if it is still open when the interpreter exits, it is closed then.

    Otherwise TensorFlow would wait for reads that Python no longer runs, and the process would hang
    or abort.
    """
    _open_streams().add(stream)
    return stream


@lru_cache(maxsize=1)
def _open_streams() -> "weakref.WeakSet[Stream]":
    """The open streams of this process; a handler closes them when the process exits."""
    # Weak, so that a stream which nothing reads any more is not kept until the exit.
    streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    def close_all() -> None:
        for stream in list(streams):
            stream.close()

    atexit.register(close_all)
    return streams


@lru_cache(maxsize=1)
def _tensorflow() -> "Future[Any]":
    """Import TensorFlow in a thread: it takes seconds, and the first steps need not wait for it."""

    def load() -> Any:
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)  # JAX uses these devices
        return tf

    return ThreadPoolExecutor(1).submit(load)


def _stream(
    config: Config, read: BatchReader, names: Sequence[str], start: int, stop: int
) -> Stream:
    """Return `_batches`; raise `UserError` if TensorFlow is not installed."""
    # A thread imports TensorFlow after the first batch. Without this check, the error would come
    # only at the second step.
    require_package("tensorflow", extra="data")
    return _batches(config, read, names, start, stop)


def _batches(
    config: Config, read: BatchReader, names: Sequence[str], start: int, stop: int
) -> Stream:
    """Yield `read(start)` to `read(stop - 1)`, through tf.data as soon as TensorFlow is imported.

    Until then each batch is read only when the consumer asks for it.
    """
    for number in range(start, stop):
        yield read(number)
        # The import starts after the first batch, so that the first step does not wait for it.
        tensorflow = _tensorflow()
        if tensorflow.done() and number + 1 < stop:
            yield from _read_ahead(tensorflow.result(), config, read, names, number + 1, stop)
            return


def _read_ahead(
    tf: Any, config: Config, read: BatchReader, names: Sequence[str], start: int, stop: int
) -> Stream:
    """Yield `read(start)` to `read(stop - 1)` in order; tf.data reads several batches ahead."""
    # Looked up now: when the interpreter exits, the module may be gone before the generator.
    op_error = tf.errors.OpError
    dtypes = [tf.float32 if name in record_format.FLOATS else tf.int32 for name in names]
    failures: list[BaseException] = []

    def call(number: np.ndarray) -> list[np.ndarray]:
        try:
            batch = read(int(number))
        except BaseException as error:
            failures.append(error)  # kept, because TensorFlow passes on only the error's text
            raise
        return [batch[name] for name in names]

    options = tf.data.Options()
    # Step n must get batch n, however long each read takes.
    options.deterministic = True
    options.threading.private_threadpool_size = PARALLEL_READS
    dataset = tf.data.Dataset.range(start, stop).map(
        lambda number: tf.numpy_function(call, [number], dtypes),
        num_parallel_calls=PARALLEL_READS,
        deterministic=True,
    )
    dataset = dataset.prefetch(config.train.prefetch_batches).with_options(options)
    try:
        for values in dataset.as_numpy_iterator():
            yield dict(zip(names, values, strict=True))
    except op_error:
        if failures:
            # The error as it was raised: a `UserError` is printed in one line, without
            # TensorFlow's.
            raise failures[0] from None
        raise RuntimeError("the input pipeline failed") from None
