"""Reader of TensorFlow Datasets: each example is a document."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bertjax.config import DataConfig
from bertjax.data.corpus.formats.decoding import decode
from bertjax.data.corpus.formats.extent import Extent
from bertjax.data.corpus.formats.fields import check_field
from bertjax.data.corpus.formats.long_texts import split_long
from bertjax.data.corpus.formats.source_file import SourceFile
from bertjax.errors import UserError, check, needs_extra, one_line


def tfds_builder(name: str) -> Any:
    """The builder of `tfds:NAME`, after its data was downloaded and prepared.

    Raises `UserError` if it cannot be loaded.
    """
    with needs_extra("data"):
        import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name.removeprefix("tfds:"))
        builder.download_and_prepare()
        return builder
    except Exception as error:
        # TFDS and its downloader let errors of any type through. The first line of the message says
        # what is wrong; the lines after it list data sets.
        reason = one_line(str(error).strip().partition("\n")[0])
        raise UserError(f"{name}: cannot be loaded ({type(error).__name__}: {reason})") from error


def tfds_bytes(name: str) -> int:
    """The size in bytes of a TFDS data set; raises `UserError` as `tfds_builder` does."""
    return int(tfds_builder(name).info.dataset_size)


def _tfds_split(builder: Any, extent: Extent) -> str:
    """The examples of an extent in TFDS's notation for splits.

    Examples are counted through all splits, which are sorted by name. TFDS's split `all` cannot be
    used, because it takes no bounds.
    """
    slices: list[str] = []
    before = 0
    for split, info in sorted(builder.info.splits.items()):
        low = max(extent.begin - before, 0)
        high = info.num_examples
        if extent.end >= 0:
            high = min(extent.end - before, high)
        if low < high:
            slices.append(f"{split}[{low}:{high}]")
        before += info.num_examples
    return "+".join(slices)


def read_tfds(
    file: SourceFile, config: DataConfig, extent: Extent, counts: Counter[str]
) -> Iterator[str]:
    name = file.name
    with needs_extra("data"):
        import tensorflow as tf
        import tensorflow_datasets as tfds

    builder = tfds_builder(name)
    # No autocache: it would hold every data set below 250 MB in memory.
    streamed = tfds.ReadConfig(try_autocache=False)
    number = extent.begin
    try:
        dataset = builder.as_dataset(
            # Not shuffled, because `number` and the extent count examples in file order.
            split=_tfds_split(builder, extent),
            shuffle_files=False,
            read_config=streamed,
        )
        for example in tfds.as_numpy(dataset):
            where = f"{name}, example {number}"
            # A data set of a single feature may give examples that are no dict.
            check_field(example if isinstance(example, dict) else (), config, where)
            value = example[config.text_field]
            check(
                # TensorFlow's strings are bytes of any encoding.
                isinstance(value, bytes),
                where=f"{where}, {config.text_field}",
                found=f"a value of type {type(value).__name__}",
                expected="text",
            )
            yield from split_long(decode(value, config, where), counts)
            number += 1
    except tf.errors.OpError as error:
        raise UserError(
            f"{name}, example {number}: is truncated or damaged ({one_line(error.message)})"
        ) from error
