"""Batches from prepared shards, by tf.data: the only way from disk to the training step."""

import atexit
import weakref
from collections.abc import Callable, Generator, Iterator

import numpy as np
from etils import epath

from bertjax.config import Config
from bertjax.data import shards
from bertjax.data.manifest import Manifest, read_manifest
from bertjax.data.order import batch_rows
from bertjax.data.reader import ForeignRecords, OurShards, foreign_paths
from bertjax.data.shards import Batch, Schema
from bertjax.errors import check

Records = OurShards | ForeignRecords
Stream = Generator[Batch, None, None]

_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


@atexit.register
def _close_streams() -> None:
    """A stream still open when the interpreter ends waits for reads that Python runs no more: a hang or an abort."""
    for stream in list(_streams):
        stream.close()


def open_split(config: Config, split: str, tokenizer_fingerprint: str) -> Records:
    """The records of `train` or `validation` in `config.data.prepared_dir`.

    Raises `UserError` when the folder has none, or what it has was made with another length,
    another number of predictions or another tokenizer, or has an id outside the model's vocabulary.
    """
    folder = epath.Path(config.data.prepared_dir)
    schema = Schema(config.data.max_seq_length, config.data.max_predictions_per_seq)
    check(folder.exists(), f"data.prepared_dir {folder}", "no such folder", "prepared shards (bertjax prepare)")
    manifest = read_manifest(folder)
    if manifest is not None:
        _check_fits(folder, manifest, schema, tokenizer_fingerprint)
        records: Records = OurShards(folder, manifest, split)
    else:
        started = (folder / ".work").exists()
        check(not started, str(folder), "an unfinished preparation", "a finished one: run bertjax prepare again")
        records = ForeignRecords(foreign_paths(folder, split), schema)
    check(len(records) > 0, f"{folder}, split {split}", "no records", "one or more")
    bound = config.model.vocab_size
    check(records.max_id < bound, str(folder), f"the id {records.max_id}", f"ids below model.vocab_size ({bound})")
    return records


def train_batches(records: Records, config: Config, start_step: int, *, rows: slice = slice(None)) -> Iterator[Batch]:
    """This host's `rows` of every global batch from `start_step` (0-based) on, without end."""

    def read(step: int) -> Batch:
        return records.read(batch_rows(len(records), config.train.batch_size, step, config.seed)[rows])

    return _closed_at_exit(_stream(config, read, start_step, 2**62))


def eval_batches(
    records: Records, config: Config, *, rows: slice = slice(None), max_batches: int = 0
) -> Iterator[Batch]:
    """This host's `rows` of batches that hold every record once, in order; the first `max_batches` if not 0.

    Every batch has `cls_weights` [B, 1] float32: 1, and 0 for the empty rows that fill up the last.
    """
    size = config.train.batch_size
    batches = -(-len(records) // size)

    def read(number: int) -> Batch:
        wanted = np.arange(number * size, (number + 1) * size)[rows]
        found = records.read(wanted[wanted < len(records)])
        missing = len(wanted) - len(found["input_ids"])
        found["cls_weights"] = np.ones((len(wanted) - missing, 1), np.float32)
        return {name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for name, x in found.items()}

    stop = min(batches, max_batches or batches)
    return _closed_at_exit(_stream(config, read, 0, stop, extra=("cls_weights",)))


def _check_fits(folder: epath.Path, manifest: Manifest, schema: Schema, fingerprint: str) -> None:
    for name in ("max_seq_length", "max_predictions_per_seq"):
        found, expected = getattr(manifest.schema, name), getattr(schema, name)
        check(found == expected, f"{folder}: {name}", f"{found} in the shards", f"{expected} as data.{name} says")
    made_with = manifest.tokenizer_fingerprint
    check(made_with == fingerprint, f"{folder}: tokenizer", made_with[:12], f"{fingerprint[:12]}, that of this run")


def _closed_at_exit(stream: Stream) -> Stream:
    _streams.add(stream)
    return stream


def _stream(config: Config, read: Callable[[int], Batch], start: int, stop: int, extra: tuple[str, ...] = ()) -> Stream:
    """`read(start)`, `read(start + 1)`, … by tf.data: in order, several at once, ahead of their use."""
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)  # they are JAX's
    failed = tf.errors.OpError  # held here: at interpreter exit the module is gone before the generator
    names = (*shards.features(), *extra)
    kinds = [tf.int32 if name in shards.INT_WIDTHS else tf.float32 for name in names]
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
        lambda number: tf.numpy_function(call, [number], kinds), num_parallel_calls=2, deterministic=True
    )
    dataset = dataset.prefetch(config.train.prefetch_batches).with_options(options)
    try:
        for values in dataset.as_numpy_iterator():
            yield dict(zip(names, values, strict=True))
    except failed:
        raise failures[0] if failures else RuntimeError("the input pipeline failed") from None
