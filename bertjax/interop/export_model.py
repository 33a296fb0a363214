"""Export of a checkpoint to the format of another program."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, get_args

from etils import epath

from bertjax.data.tokenizers.declared.tokenizer import DeclaredTokenizer
from bertjax.data.tokenizers.export_check import check_export
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.given_files import place_of
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.checkpoints.task_head import load_with_head
from bertjax.interop.checkpoints.tensor_mapping import without_groups
from bertjax.interop.programs import saved_model, stablehlo
from bertjax.interop.programs.onnx import export as onnx
from bertjax.interop.programs.serving import ServedModel, new_program, served_model
from bertjax.storage import write_whole
from bertjax.storage.output_record import request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.tasks.task_head import TaskHead
from bertjax.training import checkpoint as checkpoints
from bertjax.training.saved_model import TOKENIZER, Network, TrainedModel, load_model

ExportFormat = Literal["huggingface", "tensorflow", "stablehlo", "saved-model", "onnx"]
ExportedNetwork = Literal[Network, "decoder"]
"""A network of a run; or its model as a decoder, which predicts each token from those before."""
# These formats are programs for a runtime; the other formats are parameters for a library.
PROGRAMS: Mapping[str, Callable[[ServedModel, epath.PathLike], None]] = {
    "stablehlo": stablehlo.export_stablehlo,
    "saved-model": saved_model.export_saved_model,
    "onnx": onnx.export_onnx,
}

LAST: Mapping[str, str] = {
    "huggingface": huggingface.CONFIG,
    "tensorflow": f"{tensorflow.CHECKPOINT}.index",
    "stablehlo": stablehlo.SIGNATURE,
    "saved-model": saved_model.PROGRAM,
    "onnx": onnx.PROGRAM,
}
"""Of each format the file without which its readers see nothing."""
TASK = "task.json"
"""File next to a program that describes its `logits`: task, kind, labels."""
DECODER: Final = "decoder"

log = logging.getLogger("bertjax")


def export_model(
    checkpoint: epath.PathLike,
    folder: epath.PathLike,
    format: ExportFormat,
    *,
    task: str = "",
    network: ExportedNetwork = "model",
    outputs: Sequence[str] = (),
    max_shard_bytes: int = huggingface.MAX_SHARD_BYTES,
) -> epath.Path:
    """Write a run's newest checkpoint, or one checkpoint, to the new folder `folder`; returns it.

    The tokenizer is exported too. If the model was fine-tuned, the head of `task` is exported; the
    default is its only task. In `huggingface` the model then has the class for such a task. In a
    program the head gives the output `logits`, which `task.json` describes. `tensorflow` has only
    the encoder. `outputs` names what a program (`stablehlo`, `saved-model` or `onnx`) computes, see
    `bertjax.interop.programs.serving`. If it is empty, a program computes `logits`; without a head,
    the hidden states, and the sentence vector if the model has one. `max_shard_bytes` is the
    maximum size of a file of `huggingface`. `network` is the one to export of a run with
    replaced-token detection: the model, which is the discriminator, or the generator, a model for
    masked words. `decoder` is the model as the causal class of its family (`huggingface` alone),
    whose logits are those that causal rows train: a token sees those up to itself, and predicts the
    next one. Raises `UserError` if the format cannot express the
    model, if other programs would read other ids from the tokenizer, or if `folder` has other files
    than this call would write.

    >>> import bertjax
    >>> folder = bertjax.export_model("runs/tiny", "exported/tiny", "huggingface")
    >>> sorted(path.name for path in folder.glob("[cm]*"))
    ['config.json', 'model.safetensors']
    """
    check(
        # A string is a sequence too: each of its letters would be taken for a name.
        not isinstance(outputs, str),
        where="outputs",
        found=repr(outputs),
        expected="a list of names",
    )
    networks = get_args(ExportedNetwork)
    check(
        network in networks,
        where="network",
        found=repr(network),
        expected=f"one of {', '.join(networks)}",
    )
    formats = get_args(ExportFormat)
    check(
        format in formats,
        where="format",
        found=repr(format),
        expected=f"one of {', '.join(formats)}",
    )
    check(
        network != DECODER or format == "huggingface",
        where="format",
        found=format,
        expected="huggingface, for network decoder",
    )
    path = place_of(folder)
    check(
        not outputs or format in PROGRAMS,
        where="outputs",
        found=", ".join(outputs),
        expected=f"none, or one of {', '.join(PROGRAMS)}",
    )
    _, found = checkpoints.find_checkpoint(checkpoint)
    request = request_digest(
        "export",
        source=checkpoints.version_of_checkpoint(found),
        format=format,
        task=task,
        network=network,
        outputs=list(outputs),
        max_shard_bytes=max_shard_bytes,
    )
    # Before the model is loaded, which may take minutes.
    with folder_written_whole(path, "export", request, last=LAST[format]) as part:
        if part is not None:
            if network == DECODER:
                _write_decoder(part, found, task, max_shard_bytes)
            else:
                loaded = load_with_head(found, task, network)
                _write(part, loaded, format, outputs, max_shard_bytes)
    return path


def export_checkpoints(
    run_dir: epath.PathLike,
    folder: epath.PathLike,
    format: ExportFormat,
    steps: Sequence[int] | None = None,
    *,
    task: str = "",
    network: ExportedNetwork = "model",
    outputs: Sequence[str] = (),
    max_shard_bytes: int = huggingface.MAX_SHARD_BYTES,
) -> list[epath.Path]:
    """Write checkpoints of a run, all or those of `steps`, each as a folder `stepSTEP` in `folder`.

    A model hub takes such names for revisions. Each folder is that of `export_model`, whole or not
    there; one that is there already is left as it is, so a repeated call adds what is missing.
    Returns the folders by ascending steps. Raises `UserError` as `export_model` does, and for a
    step without a checkpoint, with the nearest.

    >>> import bertjax
    >>> folders = bertjax.export_checkpoints("runs/tiny", "exported/all", "huggingface")
    >>> [folder.name for folder in folders]
    ['step2']
    """
    run_dir = place_of(run_dir)
    wanted = checkpoints.steps_of(run_dir) if steps is None else sorted(set(steps))
    check(
        len(wanted) > 0,
        where=str(run_dir),
        found="no checkpoint",
        expected=f"a run folder with {checkpoints.FOLDER}/STEP",
    )
    # All are looked up before the first is written.
    kept = [checkpoints.kept_checkpoint(run_dir, step) for step in wanted]
    return [
        export_model(
            each,
            place_of(folder) / f"step{each.name}",
            format,
            task=task,
            network=network,
            outputs=outputs,
            max_shard_bytes=max_shard_bytes,
        )
        for each in kept
    ]


def _write(
    part: epath.Path,
    loaded: tuple[TrainedModel, TaskHead | None],
    format: ExportFormat,
    outputs: Sequence[str],
    max_shard_bytes: int,
) -> None:
    """Write the files of `export_model` into the empty folder `part`."""
    model, head = loaded
    tokenizer = _tokenizer(model)
    if tokenizer is not None and format != "huggingface":
        # There it is checked beside the configuration.
        check_export(tokenizer, model.run_dir / TOKENIZER)
    if format == "huggingface":
        huggingface.save(
            part,
            model.config.model,
            model.params,
            tokenizer,
            head=head,
            max_shard_bytes=max_shard_bytes,
        )
    elif format == "tensorflow":
        _save_tensorflow(part, model, tokenizer, head)
    else:
        served = served_model(model.config.model, model.params, outputs, head)
        save_program(part, format, served, tokenizer)


def _write_decoder(
    part: epath.Path, checkpoint: epath.Path, task: str, max_shard_bytes: int
) -> None:
    """Write the model of `checkpoint` as a decoder into the empty folder `part`."""
    check(not task, where="task", found=task, expected="none, for network decoder")
    if not any(each.data.causal_share for each in checkpoints.read_phase_configs(checkpoint)):
        log.warning(
            "data.causal_share is 0 in this run: unless its weights came from another one with "
            "causal rows, the decoder has not learnt to predict next tokens"
        )
    model = load_model(checkpoint)
    huggingface.save(
        part,
        model.config.model,
        model.params,
        _tokenizer(model),
        decoder=True,
        max_shard_bytes=max_shard_bytes,
    )


def _tokenizer(model: TrainedModel) -> Tokenizer | None:
    """Return the tokenizer of a model; None for one that was imported without."""
    return model.tokenizer if (model.run_dir / TOKENIZER).exists() else None


def _save_tensorflow(
    path: epath.Path, model: TrainedModel, tokenizer: Tokenizer | None, head: TaskHead | None
) -> None:
    if head is not None:
        log.warning(
            "task %s: its head is left out, format tensorflow has the encoder alone", head.task
        )
    if tokenizer is not None and tokenizer.strip_accents != tokenizer.lowercase:
        # Its tokenizer has one switch, `do_lower_case`, for both.
        log.warning(
            "the original BERT strips accents where it lower-cases, and nowhere else: its script "
            "gives other ids than this tokenizer, whose strip_accents is %s",
            tokenizer.strip_accents,
        )
    if isinstance(tokenizer, DeclaredTokenizer):
        log.warning(
            "the original BERT does not know the rules of tokenizer.json, which are this "
            "tokenizer's: its script cannot read it"
        )
    elif tokenizer is not None and tokenizer.registered:
        log.warning(
            "the original BERT knows no registered tokens: its script divides %s",
            ", ".join(repr(token.content) for token in tokenizer.registered[:3]),
        )
    # `tensorflow_dialect` has no name for a task's head.
    params = without_groups(model.params, [TASK_HEAD])
    tensorflow.save(path, model.config.model, params, tokenizer)


def save_program(
    path: epath.Path, format: str, model: ServedModel, tokenizer: Tokenizer | None
) -> None:
    """Write a program, what describes its head, and the tokenizer into a folder."""
    if model.head is not None:
        description = json.dumps(model.head.to_dict(), indent=2) + "\n"
        write_whole(new_program(path, TASK) / TASK, description.encode())
    PROGRAMS[format](model, path)
    if tokenizer is not None:
        # With the length at which `transformers` truncates: a longer row is an error in a program.
        tokenizer.save(path, model.config.max_length)
