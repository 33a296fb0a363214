"""Metadata files with which TensorFlow Datasets can read a prepared folder."""

from typing import Any

from etils import epath

from bertjax.data.records.manifest import Manifest
from bertjax.data.records.record_format import FLOATS, Schema


def write(folder: epath.Path, manifest: Manifest) -> None:
    """Write `dataset_info.json` and `features.json`.

    With them `tfds.builder_from_directory` can read the folder. TFDS has one list of features for
    the whole folder, not one per split; here it is that of the training records. If these are not
    masked, the list does not have the masks of the held-out records.
    """
    import tensorflow_datasets as tfds

    # See https://www.tensorflow.org/datasets/external_tfrecord. TFDS's own names of files are
    # others: the data set's name first, the shard behind the ending.
    template = tfds.core.ShardedFileTemplate(
        template="{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}", data_dir=folder, filetype_suffix="tfrecord"
    )
    split_infos = []
    for split in manifest.schemas:
        shards = manifest.split(split)
        if not shards:
            continue
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
        features=tfds.features.FeaturesDict(_features(manifest.schemas["train"])),
        split_infos=split_infos,
        filename_template=template,
        description="Pretraining rows, by bertjax prepare",
        check_data=False,
    )


def _features(schema: Schema) -> dict[str, Any]:
    """Describe the features of a record by TFDS's types."""
    import numpy as np
    import tensorflow_datasets as tfds

    features = {}
    for name, length in schema.lengths.items():
        # `tf.train.Example` holds integers as int64 only, however narrow ours are on the disk.
        dtype = np.float32 if name in FLOATS else np.int64
        features[name] = tfds.features.Tensor(shape=(length,), dtype=dtype)
    return features
