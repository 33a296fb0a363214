"""Metadata files with which TensorFlow Datasets can read a prepared folder."""

from typing import Any

from etils import epath

from bertjax.data.records.manifest import Manifest
from bertjax.data.records.record_format import FLOATS


def write(folder: epath.Path, manifest: Manifest) -> None:
    """Write `dataset_info.json` and `features.json`.

    With them `tfds.builder_from_directory` can read the folder. TFDS has one list of features for
    the whole folder, not one per split; here it has those that the records of all splits have. If
    training records are not masked, the list does not have the masks of the held-out records; if
    held-out records are no pairs, it does not have the labels of the training records.
    """
    import tensorflow_datasets as tfds

    # See https://www.tensorflow.org/datasets/external_tfrecord. TFDS's own names of files are
    # others: the data set's name first, the shard behind the ending.
    template = tfds.core.ShardedFileTemplate(
        template="{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}", data_dir=folder, filetype_suffix="tfrecord"
    )
    split_infos = []
    lengths = manifest.schemas["train"].lengths
    for split, schema in manifest.schemas.items():
        shards = manifest.split(split)
        if not shards:
            continue
        lengths = {name: size for name, size in lengths.items() if name in schema.lengths}
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.records for shard in shards],
                num_bytes=sum(shard.bytes for shard in shards),
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(_features(lengths)),
        split_infos=split_infos,
        filename_template=template,
        description="Pretraining rows, by bertjax prepare",
        check_data=False,
    )


def _features(lengths: dict[str, int]) -> dict[str, Any]:
    """Describe features with these numbers of values by TFDS's types."""
    import numpy as np
    import tensorflow_datasets as tfds

    features = {}
    for name, length in lengths.items():
        # `tf.train.Example` holds integers as int64 only, however narrow ours are on the disk.
        dtype = np.float32 if name in FLOATS else np.int64
        features[name] = tfds.features.Tensor(shape=(length,), dtype=dtype)
    return features
