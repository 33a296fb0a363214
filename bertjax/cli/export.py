"""`bertjax export CHECKPOINT --format FORMAT --to FOLDER [--network NETWORK] ...`"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bertjax.cli.arguments import need, parse_subject, quiet_libraries
from bertjax.config.field_types import shown
from bertjax.errors import check

if TYPE_CHECKING:
    from etils import epath

ALL = "all"


@dataclass(frozen=True)
class ExportCommand:
    """Write a checkpoint as a model for other software: a folder of transformers, a checkpoint of
    the original BERT, or a program for a runtime (StableHLO, a TensorFlow SavedModel, ONNX). A
    fine-tuned model is exported with its head.
    """

    to: str = ""
    """The new folder."""
    format: Literal["huggingface", "tensorflow", "stablehlo", "saved-model", "onnx"] = "huggingface"
    """Format of the model."""
    checkpoints: tuple[str, ...] = ()
    """Steps of a run whose checkpoints are written, or all; each as a folder stepSTEP in --to,
    which from_pretrained loads. By default its newest or best one, in --to itself.
    """
    task: str = ""
    """Task whose head is exported, if the model was fine-tuned on several tasks."""
    network: Literal["model", "generator", "decoder"] = "model"
    """What of the run is written: its model; with replaced-token detection also the generator, a
    smaller model for masked words; or the model as a decoder that AutoModelForCausalLM loads, whose
    tokens see those up to themselves and predict the next one (format huggingface).
    """
    outputs: tuple[Literal["hidden", "pooled", "mlm_logits", "nsp_logits", "logits"], ...] = ()
    """Outputs of a program for a runtime. By default a fine-tuned model gives logits; another model
    gives hidden, and pooled if it has a pooler.
    """
    max_shard_bytes: int = 5_000_000_000
    """Format huggingface: maximum size of a file of weights; larger weights are divided."""


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, command = parse_subject(
        "export", ExportCommand(), words, "a run or checkpoint folder", "CHECKPOINT"
    )
    need(command.to, "export", "--to with the new folder")
    steps = _steps(command.checkpoints)
    quiet_libraries()
    # Imported after the checks: so a mistake is told without waiting for JAX.
    from bertjax.interop.export_model import export_checkpoints, export_model

    options: dict[str, Any] = {
        "task": command.task,
        "network": command.network,
        "outputs": command.outputs,
        "max_shard_bytes": command.max_shard_bytes,
    }
    if command.checkpoints:
        folders = export_checkpoints(subject, command.to, command.format, steps, **options)
    else:
        folders = [export_model(subject, command.to, command.format, **options)]
    for folder in folders:
        for file in _files(folder):
            print(f"{file.stat().length:>13,} {file}")
    return 0


def _steps(words: Sequence[str]) -> list[int] | None:
    """Return the steps that `--checkpoints` names; None for all."""
    if list(words) == [ALL]:
        return None
    for word in words:
        check(
            word.isdecimal() and len(word) < 10,
            where="--checkpoints",
            found=shown(word),
            expected=f"{ALL}, or steps",
        )
    return [int(word) for word in words]


def _files(folder: "epath.Path") -> "Iterator[epath.Path]":
    """Yield the files below a folder, sorted within each folder."""
    # A folder is listed in any order.
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path
