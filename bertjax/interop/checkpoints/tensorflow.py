"""Import and export of checkpoints of the original BERT (github.com/google-research/bert).

A folder of the original BERT has `bert_config.json`, `bert_model.ckpt.*` and `vocab.txt`.
"""

import dataclasses
import glob
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import ModelConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check, disk_errors, mismatch, needs_extra, one_line
from bertjax.given_files import place_of
from bertjax.interop.checkpoints.dropped_tensors import drop_tensors
from bertjax.interop.checkpoints.families.bert import BERT, SAME_NAME_FIELDS
from bertjax.interop.checkpoints.families.matching import matching_family
from bertjax.interop.checkpoints.families.rules import Only
from bertjax.interop.checkpoints.families.table import read_config
from bertjax.interop.checkpoints.opened_files import (
    as_float32,
    check_float,
    check_local,
    check_size,
)
from bertjax.interop.checkpoints.tensor_mapping import (
    Tensors,
    export_tensors,
    heads_in,
    import_params,
)
from bertjax.interop.checkpoints.tensor_names import tensorflow_dialect
from bertjax.interop.checkpoints.training_state import (
    TYPES_WITHOUT_NUMBERS,
    Variable,
    training_state,
    unknown_slots,
)
from bertjax.interop.tensorflow_files import tensorflow_output
from bertjax.model.functional import Params
from bertjax.storage import read_json, write_whole

log = logging.getLogger("bertjax")

CONFIG = "bert_config.json"
CHECKPOINT = "bert_model.ckpt"
# The original calls tf.contrib.layers.layer_norm, whose `variance_epsilon` it does not change.
LAYER_NORM_EPS = 1e-12  # a constant in the original's layer norms
# The original's `BertConfig` has no field for `layer_norm_eps`.
FIELDS = tuple(name for name in SAME_NAME_FIELDS if name != "layer_norm_eps")
# A field that bertjax adds and that the original's scripts ignore: they know only one `gelu`.
ACTIVATION = "bertjax_hidden_act"
SCOPES = ("bert", "cls")  # of the original's variables: the encoder, the pretraining heads
FILE_ENDING = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
SHARD = re.compile(r"\.data-\d{5}-of-(\d{5})$")
# What tf.train.Checkpoint names a variable after: its place among Python's objects.
OBJECT = "/.ATTRIBUTES/"
AVERAGE = "ExponentialMovingAverage"  # TensorFlow's own name for the slot of an average


def load(source: epath.PathLike, drop: Sequence[str] = ()) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the configuration and the parameters in a folder of the original BERT.

    `source` may also be the prefix of one checkpoint in the folder. Variables of the training
    (`training_state`) and tensors that match an entry of `drop` are left out; where there are
    averages of the parameters, the parameters themselves are taken. The original's `gelu` is read
    as the exact GELU: the published models were trained with it, although the original's script has
    used the tanh approximation since 2019. Raises the errors of `huggingface.load`.
    """
    prefix = _prefix(place_of(source))
    config = _read_config(prefix.parent / CONFIG)
    dialect = tensorflow_dialect()
    tensors, state = _open(prefix)
    tensors = drop_tensors(config, dialect, tensors, drop)
    config = dataclasses.replace(config, heads=heads_in(config, tensors, dialect))
    params = import_params(config, dialect, tensors)
    _log_left_out(prefix, state)
    return config, params


def _read_config(path: epath.Path) -> ModelConfig:
    values = read_json(path)
    width = values.get("embedding_size")
    check(
        # ALBERT's and ELECTRA's scripts have this field; their variables have other names too.
        width in (None, values.get("hidden_size")),
        where=f"{path}: embedding_size",
        found=repr(width),
        expected="that of hidden_size: of TensorFlow's checkpoints only BERT's are read",
    )
    refused = [rule.name for rule in BERT.rules if isinstance(rule, Only)]
    fields = {name: values[name] for name in (*FIELDS, *refused) if name in values}
    fields["hidden_act"] = values.get(ACTIVATION, values.get("hidden_act"))
    fields["layer_norm_eps"] = LAYER_NORM_EPS
    return read_config(BERT, fields, str(path))


def _log_left_out(prefix: epath.Path, state: Mapping[str, str]) -> None:
    """Say which of the training's variables were left out, by their kinds."""
    if not state:
        return
    kinds = Counter(state.values())
    listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
    log.info("%s: variables of its training are left out: %s", prefix, listed)
    unknown = Counter(unknown_slots(state))
    if unknown:
        log.warning(
            "%s: variables under the model's own that no known optimizer has are left out, too: %s;"
            " if the model computes with them, it is another one",
            prefix,
            ", ".join(f"{kind} ({count})" for kind, count in sorted(unknown.items())),
        )
    if any(kind.endswith(f"/{AVERAGE}") for kind in kinds):
        log.warning(
            "%s: has averages of its parameters (%s); the parameters themselves are imported",
            prefix,
            AVERAGE,
        )


def save(
    folder: epath.PathLike, config: ModelConfig, params: Params, tokenizer: Tokenizer | None = None
) -> None:
    """Write `bert_config.json`, `bert_model.ckpt.*` and the vocabulary for the original scripts.

    The checkpoint's index is written last. Raises `UserError` for a model that the original cannot
    compute.
    """
    path = place_of(folder)
    family = matching_family(config)
    check(
        family is BERT,
        where="model",
        found=f"what makes it {family.name}",
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
    if not source.is_dir():
        prefix = source.parent / FILE_ENDING.sub("", source.name)
        check(
            (prefix.parent / f"{prefix.name}.index").exists(),
            where=str(source),
            found="neither a folder nor a checkpoint's prefix",
            expected=f"{prefix.name}.index",
        )
        return prefix
    names = sorted(file.name for file in source.iterdir())
    indices = [name for name in names if name.endswith(".index")]
    shards = [name for name in names if SHARD.search(name)]
    found = "no checkpoint"
    if shards:
        found = f"{shards[0]} without {FILE_ENDING.sub('.index', shards[0])}"
    check(
        len(indices) == 1,
        where=str(source),
        found=", ".join(indices) or found,
        expected="one *.index, or the path of one checkpoint without its ending",
    )
    return source / FILE_ENDING.sub("", indices[0])


def _open(prefix: epath.Path) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors, and those that are variables of the training (`training_state`)."""
    with needs_extra("data"):
        import tensorflow as tf

    check_local(prefix, "checkpoint")
    held = _check_shards(prefix)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = {name: dtype.name for name, dtype in reader.get_variable_to_dtype_map().items()}
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except Exception as error:  # for damaged files TensorFlow raises IndexError and others
        raise _damaged(prefix, error) from error
    variables = {name: Variable(shape, types[name]) for name, shape in shapes.items()}
    state = training_state(variables, SCOPES)
    for name, variable in variables.items():
        _check_variable(f"{prefix}: {name}", name, variable, held)

    def read(name: str) -> np.ndarray:
        check_float(types[name], str(prefix), name)
        try:
            array = reader.get_tensor(name)
        except Exception as error:  # see above
            check(
                types[name] != "float16" or "not supported" not in str(error),
                where=f"{prefix}: {name}",
                found="float16 in parts (a partitioned variable)",
                expected="one that TensorFlow's reader joins: float32, bfloat16 or float64",
            )
            raise _damaged(prefix, error) from error
        return as_float32(array)

    return Tensors(str(prefix), shapes, read, not_of_model=state.keys()), state


def _check_shards(prefix: epath.Path) -> int:
    """Return how many bytes the shards of a checkpoint have; `UserError` where one is missing."""
    files = {file.name: file for file in prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*")}
    missing: list[str] = []
    for name in sorted(files):
        match = SHARD.search(name)
        if match is None:
            continue
        count = match[1]
        shards = [f"{prefix.name}.data-{i:05d}-of-{count}" for i in range(int(count))]
        absent = [shard for shard in shards if shard not in files]
        # Shards of another number may be left from an earlier checkpoint of this name.
        if not absent:
            return sum(file.stat().length for file in files.values())
        missing = missing or absent
    raise mismatch(
        where=str(prefix),
        found=f"no {missing[0] if missing else f'{prefix.name}.data-*'}",
        expected="all the files of the checkpoint beside its index",
    )


def _check_variable(where: str, name: str, variable: Variable, held: int) -> None:
    """Raise `UserError` for a variable that cannot be read: it is an object's, or too large.

    An index may claim any shape, and TensorFlow reserves memory for this shape before it reads. The
    checkpoint's files have `held` bytes.
    """
    check(
        OBJECT not in name,
        where=where,
        found="a variable by its place in an object (tf.train.Checkpoint)",
        expected="one by its own name, as tf.compat.v1.train.Saver writes it",
    )
    if variable.type in TYPES_WITHOUT_NUMBERS:
        return
    import tensorflow as tf

    check_size(where, variable.shape, tf.dtypes.as_dtype(variable.type).size, held)


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
