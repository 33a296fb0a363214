"""Import and export of checkpoints of the original BERT (github.com/google-research/bert).

A folder of the original BERT has `bert_config.json`, `bert_model.ckpt.*` and `vocab.txt`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check, disk_errors, needs_extra, one_line
from bertjax.interop.checkpoints.model_config import (
    SAME_NAME_FIELDS,
    huggingface_architecture,
    read_huggingface_config,
)
from bertjax.interop.checkpoints.opened_files import check_local
from bertjax.interop.checkpoints.tensor_mapping import (
    Tensors,
    drop_tensors,
    export_tensors,
    heads_in,
    import_params,
)
from bertjax.interop.checkpoints.tensor_names import tensorflow_dialect
from bertjax.interop.tensorflow_files import tensorflow_output
from bertjax.model.functional import Params
from bertjax.storage import read_json, write_whole

CONFIG = "bert_config.json"
CHECKPOINT = "bert_model.ckpt"
# The original calls tf.contrib.layers.layer_norm, whose `variance_epsilon` it does not change.
LAYER_NORM_EPS = 1e-12  # a constant in the original's layer norms
# The original's `BertConfig` has no field for `layer_norm_eps`.
FIELDS = tuple(name for name in SAME_NAME_FIELDS if name != "layer_norm_eps")
# A field that bertjax adds and that the original's scripts ignore: they know only one `gelu`.
ACTIVATION = "bertjax_hidden_act"


def load(source: epath.PathLike, drop: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the configuration and the parameters in a folder of the original BERT.

    `source` may also be the prefix of one checkpoint in the folder. The optimizer's moments, the
    step, and tensors whose names begin with an entry of `drop` are left out. The original's `gelu`
    is read as the exact GELU: the published models were trained with it, although the original's
    script has used the tanh approximation since 2019. Raises the errors of `huggingface.load`.
    """
    prefix = _prefix(epath.Path(source))
    values = read_json(prefix.parent / CONFIG)
    fields = {name: values[name] for name in FIELDS if name in values}
    fields["hidden_act"] = values.get(ACTIVATION, values.get("hidden_act"))
    fields["layer_norm_eps"] = LAYER_NORM_EPS
    _, config = read_huggingface_config(fields, str(prefix.parent / CONFIG))
    dialect = tensorflow_dialect()
    tensors = drop_tensors(_open(prefix, dialect.ignored), drop)
    config = dataclasses.replace(config, heads=heads_in(tensors, dialect))
    return config, import_params(config, dialect, tensors)


def save(
    folder: epath.PathLike, config: ModelConfig, params: Params, tokenizer: Tokenizer | None = None
) -> None:
    """Write `bert_config.json`, `bert_model.ckpt.*` and the vocabulary for the original scripts.

    The checkpoint's index is written last. Raises `UserError` for a model that the original cannot
    compute.
    """
    path = epath.Path(folder)
    architecture = huggingface_architecture(config)
    check(
        architecture == "bert",
        where="model",
        found=f"what makes it {architecture}",
        expected="plain BERT, for the original's checkpoints",
    )
    check(
        config.layer_norm_eps == LAYER_NORM_EPS,
        where="model.layer_norm_eps",
        found=config.layer_norm_eps,
        expected=f"{LAYER_NORM_EPS}, which the original has fixed",
    )
    values: dict[str, Any] = {name: getattr(config, name) for name in FIELDS}
    values["hidden_act"] = "relu" if config.hidden_act == "relu" else "gelu"
    if config.hidden_act == "gelu_tanh":
        values[ACTIVATION] = "gelu_new"
    if tokenizer is not None:
        tokenizer.save(path, config.max_length)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    write_whole(path / CONFIG, (json.dumps(values, indent=2) + "\n").encode())
    _write(path, dict(export_tensors(params, tensorflow_dialect())))


def _prefix(source: epath.Path) -> epath.Path:
    """Return the path of the checkpoint's files without their endings."""
    if source.name.endswith(".index"):
        source = source.parent / source.name.removesuffix(".index")
    if not source.is_dir():
        check(
            (source.parent / f"{source.name}.index").exists(),
            where=str(source),
            found="neither a folder nor a checkpoint's prefix",
            expected=f"{source.name}.index",
        )
        return source
    indices = sorted(file.name for file in source.iterdir() if file.name.endswith(".index"))
    check(
        len(indices) == 1,
        where=str(source),
        found=", ".join(indices) or "no checkpoint",
        expected="one *.index, or the path of one checkpoint without its ending",
    )
    return source / indices[0].removesuffix(".index")


def _open(prefix: epath.Path, ignored: Callable[[str], bool]) -> Tensors:
    with needs_extra("data"):
        import tensorflow as tf

    check_local(prefix, "checkpoint")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        dtypes = reader.get_variable_to_dtype_map()
    except Exception as error:  # for damaged files TensorFlow raises IndexError and others
        raise _damaged(prefix, error) from error
    read_shapes = {name: shape for name, shape in shapes.items() if not ignored(name)}
    _check_tensors(prefix, read_shapes, dtypes)

    def read(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(name)
        except Exception as error:  # see above
            raise _damaged(prefix, error) from error

    return Tensors(str(prefix), shapes, read)


def _check_tensors(
    prefix: epath.Path, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, Any]
) -> None:
    """Raise `UserError` for a tensor that is not float32 or that claims more bytes than there are.

    An index may claim any shape, and TensorFlow reserves memory for this shape before it reads.
    """
    import tensorflow as tf

    held = sum(file.stat().length for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    for name, shape in shapes.items():
        check(
            dtypes[name] == tf.float32,
            where=f"{prefix}: {name}",
            found=f"the type {dtypes[name].name}",
            expected="float32",
        )
        check(
            4 * math.prod(shape) <= held,
            where=f"{prefix}: {name}",
            found=f"{held} bytes for the shape {list(shape)}",
            expected="all its numbers",
        )


def _damaged(prefix: epath.Path, error: Exception) -> UserError:
    return UserError(f"{prefix}: found no whole checkpoint of TensorFlow ({one_line(error)})")


def _write(folder: epath.Path, tensors: dict[str, np.ndarray]) -> None:
    with needs_extra("data"):
        import tensorflow as tf

    # The index comes last: without it there is no checkpoint.
    with tensorflow_output(folder, last=f"{CHECKPOINT}.index") as local:
        # The operator that `tf.train.Saver` uses; `tf.train.Checkpoint` would give the tensors
        # other names.
        tf.raw_ops.SaveV2(
            prefix=str(local / CHECKPOINT),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=[tf.constant(array) for array in tensors.values()],
        )
