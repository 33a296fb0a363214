"""The metadata that make a prepared folder a TensorFlow Datasets folder too."""

from typing import Any

from etils import epath

from bertjax.data.records.manifest import Manifest
from bertjax.data.records.record_format import FLOATS, Schema


def write(folder: epath.Path, manifest: Manifest) -> None:
    """Write `dataset_info.json` and `features.json`, with which `tfds.builder_from_directory` reads
    the folder.

    A folder has one list of features there: that of the training rows. Where they are not masked,
    the masks of the held-out ones are not told of.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        template="{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}", data_dir=folder, filetype_suffix="tfrecord"
    )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in manifest.split(split)],
            num_bytes=sum(shard.bytes for shard in manifest.split(split)),
            filename_template=template.replace(split=split),
        )
        for split in manifest.schemas
        if manifest.split(split)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(_features(manifest.schemas["train"])),
        split_infos=infos,
        filename_template=template,
        description="Pretraining rows, by bertjax prepare",
        check_data=False,
    )


def _features(schema: Schema) -> dict[str, Any]:
    import numpy as np
    import tensorflow_datasets as tfds

    kinds = {name: np.float32 if name in FLOATS else np.int64 for name in schema.lengths}
    return {
        name: tfds.features.Tensor(shape=(schema.lengths[name],), dtype=kind)
        for name, kind in kinds.items()
    }
