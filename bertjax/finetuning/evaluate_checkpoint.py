"""Evaluation of a fine-tuned checkpoint on splits of its tasks, and predictions of it."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.error_analysis import write_evaluation
from bertjax.finetuning.evaluate import Assessed, Split, evaluate_split, evaluate_splits
from bertjax.finetuning.finetune import choose_thresholds, record_sparsity, validation_split
from bertjax.finetuning.load import Finetuned, load_finetuned
from bertjax.parallel import hosts
from bertjax.parallel.memory import batch_memory_errors, check_batch_memory
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks import registry
from bertjax.tasks.kind import Entry
from bertjax.training import checkpoint
from bertjax.training.step import check_batch


def entries_of(model: Finetuned) -> list[Entry]:
    """Return the model's tasks with the locations of their data, as the configuration has them.

    Raises `UserError` for a task that the model was not trained on.
    """
    options = model.config.finetune
    entries = [registry.entry_of(text, options) for text in options.tasks]
    known = ", ".join(f"{name}:{kind}" for name, kind in model.kinds.items())
    for entry in entries:
        check(
            model.kinds.get(entry.name) == entry.kind,
            where="finetune.tasks",
            found=f"{entry.name}:{entry.kind}",
            expected=f"a task of this model: {known}",
        )
    return entries


def validation_sets(model: Finetuned, tokenizer: Tokenizer) -> list[Split]:
    """Read the validation sets of the tasks, each task's own first.

    Raises `UserError` for an invalid file, and for the metric of a class that a set has not.
    """
    options = model.config.finetune
    splits = []
    for entry in entries_of(model):
        task = model.objective.by_name[entry.name]
        for name in registry.validation_splits(entry):
            examples = registry.read_split(entry, name, options, True)
            registry.KINDS[entry.kind].check_split(entry, name, task, examples)
            registry.check_metric_counts(task, examples, options)
            splits.append(validation_split(model.config, task, name, examples, tokenizer))
    return splits


def assess(
    model: Finetuned, splits: Sequence[Split], tokenizer: Tokenizer
) -> tuple[Assessed, dict[str, float]]:
    """Evaluate splits: each with its predictions and figures, and all figures by name.

    Of several processes all call this and get the same.
    """
    mesh = make_mesh(model.config.mesh)
    # The devices here may be others than in training, and the batch must fit them too.
    check_batch(model.config, mesh)
    check_batch_memory(model.config, mesh)
    with batch_memory_errors(model.config):
        return evaluate_splits(
            model.config, model.objective, mesh, model.inference_params, splits, tokenizer.pad_id
        )


def predict_split(
    model: Finetuned, entry: Entry, name: str, tokenizer: Tokenizer
) -> tuple[list[Any], list[Any]]:
    """Read and predict a split of a task, which needs no labels: its examples and predictions.

    Of several processes all call this and get the same.
    """
    examples = registry.read_split(entry, name, model.config.finetune, False)
    return examples, predict_examples(model, entry, examples, tokenizer)


def predict_examples(
    model: Finetuned, entry: Entry, examples: list[Any], tokenizer: Tokenizer
) -> list[Any]:
    """Return a prediction for each example of a task, which needs no label.

    Of several processes all call this and get the same.
    """
    config, task = model.config, model.objective.by_name[entry.name]
    encoded = task.encode(examples, tokenizer, config.finetune.max_seq_length, targets=False)
    split = Split(entry.name, "", examples, encoded)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    check_batch_memory(config, mesh)
    with batch_memory_errors(config):
        evaluated = evaluate_split(
            config,
            model.objective,
            mesh,
            model.inference_params,
            split,
            tokenizer.pad_id,
            labelled=False,
        )
    return evaluated.predictions


def evaluate_finished(
    run_dir: epath.Path, tokenizer: Tokenizer, splits: Sequence[Split]
) -> tuple[epath.Path, dict[str, float]]:
    """Evaluate the selected checkpoint of a finished run: its folder, and all figures by name.

    `splits` are the validation sets of the run, which are not read and reported on a second time.
    If a task has a decision threshold, it is chosen first and added to `result.json`. All processes
    must call this and get the same result; the first one writes `evaluation.json`.
    """
    # The first process has written which checkpoint is selected; the others may not see that yet.
    own = str(checkpoint.find_checkpoint(run_dir)[1]) if hosts.is_first() else ""
    selected = epath.Path(hosts.from_first(own))
    config = checkpoint.read_checkpoint_config(selected)
    model = load_finetuned(selected, config)
    record_sparsity(config, run_dir, model.params)
    assessed, figures = assess(model, splits, tokenizer)
    # Only the first process writes, but all must take the same branch: each loads and evaluates.
    if hosts.agree(hosts.is_first() and choose_thresholds(run_dir, assessed)):
        # The tasks are read again, now with their thresholds.
        model = load_finetuned(selected, config)
        assessed, figures = assess(model, splits, tokenizer)
    if hosts.is_first():
        write_evaluation(run_dir, int(selected.name), assessed, figures)
    return selected, figures
