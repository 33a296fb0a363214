"""A checkpoint of ours as a model of another program."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from etils import epath

from bertjax.data.tokenizers.tokenizer import load_tokenizer
from bertjax.errors import check
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.interop.checkpoints.tensor_names import TASK_HEAD
from bertjax.interop.programs.onnx import export_onnx
from bertjax.interop.programs.saved_model import export_saved_model
from bertjax.interop.programs.serving import new_program
from bertjax.interop.programs.stablehlo import export_stablehlo
from bertjax.storage import write_whole
from bertjax.training.saved_model import check_new, new_folder

Format = Literal["huggingface", "tensorflow", "stablehlo", "saved-model", "onnx"]
# Programs of a fixed function, for a runtime; the others are parameters for a library.
PROGRAMS: Mapping[str, Callable[..., None]] = {
    "stablehlo": export_stablehlo,
    "saved-model": export_saved_model,
    "onnx": export_onnx,
}

TASK = "task.json"  # beside a program, what its `logits` are

log = logging.getLogger("bertjax")


def export_model(
    checkpoint: epath.PathLike,
    folder: epath.PathLike,
    format: Format,
    *,
    task: str = "",
    outputs: Sequence[str] = (),
    max_shard_bytes: int = huggingface.MAX_SHARD_BYTES,
) -> epath.Path:
    """Write a run's newest checkpoint, or one checkpoint, to the new folder `folder`, its tokenizer
    with it.

    Of a fine-tuned model the head of `task` goes with it, by default of its only one: in
    `huggingface` by the class for such a task, in a program as the output `logits`, described in
    `task.json`; `tensorflow` has the encoder alone. `outputs` says what a program of `stablehlo`,
    `saved-model` or `onnx` computes (`bertjax.interop.programs.serving`); empty: `logits`, or else
    hidden states, and the sentence vector where there is one. `max_shard_bytes` is the largest file
    of `huggingface`. Raises `UserError` where the model is none that the format can say, or
    `folder` has files in it.
    """
    check(
        not isinstance(outputs, str),
        where="outputs",
        found=repr(outputs),
        expected="a list of names",
    )
    formats = get_args(Format)
    check(
        format in formats,
        where="format",
        found=repr(format),
        expected=f"one of {', '.join(formats)}",
    )
    path = epath.Path(folder)
    check_new(path)
    check(
        not outputs or format in PROGRAMS,
        where="outputs",
        found=", ".join(outputs),
        expected=f"none, or one of {', '.join(PROGRAMS)}",
    )
    loaded, head = load_with_head(checkpoint, task)
    config, params = loaded.config.model, loaded.params
    source = loaded.run_dir / "tokenizer"
    tokenizer = load_tokenizer(source) if source.exists() else None
    with new_folder(path):
        if format == "huggingface":
            huggingface.save(
                path, config, params, tokenizer, head=head, max_shard_bytes=max_shard_bytes
            )
        elif format == "tensorflow":
            if head is not None:
                log.warning(
                    "task %s: its head is left out, format tensorflow has the encoder alone",
                    head.task,
                )
            tensorflow.save(
                path,
                config,
                {group: params[group] for group in params if group != TASK_HEAD},
                tokenizer,
            )
        else:
            if head is not None:
                said = json.dumps(head.to_dict(), indent=2) + "\n"
                write_whole(new_program(path, TASK) / TASK, said.encode())
            PROGRAMS[format](config, params, path, outputs, head)
            if tokenizer is not None:
                tokenizer.save(path, config.max_length)
    return path
