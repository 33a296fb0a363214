"""Checkpoints of the original BERT (github.com/google-research/bert): `bert_config.json`,
`bert_model.ckpt.*`.
"""

import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check, disk_errors
from bertjax.interop.checkpoints.model_config import SAME_NAME_FIELDS, huggingface_architecture, read_huggingface_config
from bertjax.interop.checkpoints.tensor_mapping import Tensors, export_tensors, heads_in, import_params, drop_tensors
from bertjax.interop.checkpoints.tensor_names import tensorflow_dialect
from bertjax.storage import is_local, read_json, write_whole

CONFIG = "bert_config.json"
CHECKPOINT = "bert_model.ckpt"
LAYER_NORM_EPS = 1e-12  # of their layer norms, which no setting changes
FIELDS = tuple(name for name in SAME_NAME_FIELDS if name != "layer_norm_eps")


def load(source: epath.PathLike, drop: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and parameters of a folder of the original BERT, or of one checkpoint in it by
    its prefix.

    Moments of the optimizer and the step are left out, and so are tensors whose names begin with an
    entry of `drop`. Their `gelu` is taken for the exact one, with which the published models were
    trained, though the script's own has been the tanh approximation since 2019. Errors as in
    `huggingface.load`.
    """
    prefix = _prefix(epath.Path(source))
    values = read_json(prefix.parent / CONFIG)
    activation = values.pop("bertjax_hidden_act", values.get("hidden_act"))
    values = {name: values[name] for name in FIELDS if name in values} | {"hidden_act": activation}
    _, config = read_huggingface_config(
        values | {"layer_norm_eps": LAYER_NORM_EPS}, str(prefix.parent / CONFIG)
    )
    dialect = tensorflow_dialect()
    tensors = drop_tensors(_open(prefix, dialect.ignored), drop)
    config = dataclasses.replace(config, heads=heads_in(tensors, dialect))
    return config, import_params(config, dialect, tensors)


def save(
    folder: epath.PathLike, config: ModelConfig, params: Any, tokenizer: Tokenizer | None = None
) -> None:
    """Write `bert_config.json`, `bert_model.ckpt.*` and the vocabulary for the original scripts.

    The checkpoint's index is written last. Raises `UserError` for a model that the original does
    not compute.
    """
    path = epath.Path(folder)
    architecture = huggingface_architecture(config)
    check(
        architecture == "bert",
        where="model",
        found=f"what makes it {architecture}",
        expected="plain BERT, for the original's checkpoints",
    )
    eps = config.layer_norm_eps
    check(
        eps == LAYER_NORM_EPS,
        where="model.layer_norm_eps",
        found=eps,
        expected=f"{LAYER_NORM_EPS}, which the original has fixed",
    )
    values: dict[str, Any] = {name: getattr(config, name) for name in FIELDS}
    values["hidden_act"] = "relu" if config.hidden_act == "relu" else "gelu"
    if config.hidden_act == "gelu_tanh":
        values["bertjax_hidden_act"] = (
            "gelu_new"  # read again by `load`; the original knows one gelu
        )
    if tokenizer is not None:
        tokenizer.save(path, config.max_length)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    write_whole(path / CONFIG, (json.dumps(values, indent=2) + "\n").encode())
    _write(path, dict(export_tensors(params, tensorflow_dialect())))


def _prefix(source: epath.Path) -> epath.Path:
    """The checkpoint's path without its endings."""
    if source.name.endswith(".index"):
        source = source.parent / source.name.removesuffix(".index")
    if not source.is_dir():
        found = (source.parent / f"{source.name}.index").exists()
        check(
            found,
            where=str(source),
            found="neither a folder nor a checkpoint's prefix",
            expected=f"{source.name}.index",
        )
        return source
    indices = sorted(file.name for file in source.iterdir() if file.name.endswith(".index"))
    expected = "one *.index, or the path of one checkpoint without its ending"
    check(
        len(indices) == 1,
        where=str(source),
        found=", ".join(indices) or "no checkpoint",
        expected=expected,
    )
    return source / indices[0].removesuffix(".index")


def _open(prefix: epath.Path, ignored: Any) -> Tensors:
    import tensorflow as tf

    check(
        is_local(prefix),
        where=str(prefix),
        found="a checkpoint in a store",
        expected="one on a disk of this machine",
    )
    held = sum(file.stat().length for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        kinds = reader.get_variable_to_dtype_map()
    except Exception as error:  # of damaged files its bindings raise IndexError and what not
        raise _damaged(prefix, error) from error
    for name, shape in shapes.items():
        if not ignored(name):
            kind = f"the type {kinds[name].name}"
            check(
                kinds[name] == tf.float32, where=f"{prefix}: {name}", found=kind, expected="float32"
            )
            size = 4 * math.prod(shape)  # before memory is taken for it
            check(
                size <= held,
                where=f"{prefix}: {name}",
                found=f"{held} bytes for the shape {list(shape)}",
                expected="all its numbers",
            )

    def read(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(name)
        except Exception as error:  # of damaged files its bindings raise IndexError and what not
            raise _damaged(prefix, error) from error

    return Tensors(str(prefix), shapes, read)


def _damaged(prefix: epath.Path, error: Exception) -> UserError:
    return UserError(
        f"{prefix}: found no whole checkpoint of TensorFlow ({' '.join(str(error).split())[:200]})"
    )


def _write(folder: epath.Path, tensors: dict[str, np.ndarray]) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as local, disk_errors(folder):
        prefix = epath.Path(local) / CHECKPOINT
        names, values = list(tensors), [tf.constant(array) for array in tensors.values()]
        try:
            tf.raw_ops.SaveV2(
                prefix=str(prefix),
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=values,
            )
        except tf.errors.OpError as error:
            raise UserError(
                f"{folder}: cannot be written ({' '.join(str(error).split())[:200]})"
            ) from error
        # Data before the index, without which there is no checkpoint.
        for file in sorted(
            epath.Path(local).iterdir(), key=lambda file: file.name.endswith(".index")
        ):
            write_whole(folder / file.name, file.read_bytes())
