"""Pruning by layer: an ONNX program of a model whose layers have different sizes.

A run cannot have such a model, because its layers are one stack.
"""

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.compression.measured_run import require_onnx
from bertjax.compression.prune.examples import Examples
from bertjax.compression.prune.reduction import Model, PruneOptions, chosen_by, chosen_parts
from bertjax.compression.prune.structure import cut_layers
from bertjax.data.tokenizers.export_check import check_export
from bertjax.errors import check
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.interop.export_model import save_program
from bertjax.interop.programs.serving import served_model
from bertjax.progress import Progress
from bertjax.storage import is_local, write_whole
from bertjax.training.saved_model import TOKENIZER

RECORD = "pruned.json"
"""File beside the program with the changes and the numbers of what stays."""


def check_program(folder: epath.Path) -> None:
    """Raise `UserError` where no ONNX program can be written and measured."""
    check(is_local(folder), where="--to", found=str(folder), expected="a folder on a disk")
    require_onnx()


def write_pruned_program(
    folder: epath.Path,
    model: Model,
    options: PruneOptions,
    examples: Examples,
    outputs: Sequence[str],
    task: str,
    progress: Progress,
) -> Model:
    """Write the program of a model without the heads and units that matter least in all layers.

    `outputs` and `task` are those of `export_model`. Returns the model with its changes.
    """
    parts, model = chosen_parts(model, options, examples, progress)
    config = model.config
    share = config.num_attention_heads // config.key_value_heads
    heads = [share * len(own) for own in parts.heads]
    model.changes.append(f"heads by layer: {_counts(heads)} of {config.num_attention_heads}")
    units = [len(own) for own in parts.units]
    model.changes.append(
        f"feed-forward units by layer: {_counts(units)} of {config.intermediate_size:,}"
    )
    model.changes.append(chosen_by(options))
    trained, head = load_with_head(model.source.folder, task)
    params = {**trained.params, "encoder": model.params["encoder"]}
    whole = served_model(config, params, outputs, head)
    layers = cut_layers(config, whole.params, parts)
    served = whole.with_params({**whole.params, **layers})
    tokenizer = model.source.tokenizer
    if tokenizer is not None:
        check_export(tokenizer, model.source.run_dir / TOKENIZER)
    save_program(folder, "onnx", served, tokenizer)
    record: dict[str, Any] = {"changes": model.changes, "kept": model.kept}
    write_whole(folder / RECORD, json.dumps(record).encode())
    return model


def _counts(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts)
