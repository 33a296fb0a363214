"""A fine-tuned model on splits of its tasks: predictions, and their figures by name."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.error_analysis import write_evaluation
from bertjax.finetuning.evaluate import Assessed, Split, evaluate_split, evaluate_splits
from bertjax.finetuning.finetune import choose_thresholds, validation_split
from bertjax.finetuning.load import Finetuned, load_finetuned
from bertjax.parallel import hosts
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks import registry as kinds
from bertjax.training import checkpoint
from bertjax.training.step import check_batch


def entries_of(model: Finetuned) -> list[kinds.Entry]:
    """The model's tasks and where their data are; `UserError` for one that it was not trained on."""
    entries = [kinds.entry_of(text, model.config.finetune) for text in model.config.finetune.tasks]
    for entry in entries:
        trained = model.kinds.get(entry.name)
        known = ", ".join(f"{name}:{kind}" for name, kind in model.kinds.items())
        check(
            trained == entry.kind,
            where="finetune.tasks",
            found=f"{entry.name}:{entry.kind}",
            expected=f"a task of this model: {known}",
        )
    return entries


def validation_sets(model: Finetuned, tokenizer: Tokenizer) -> list[Split]:
    """The validation sets of the tasks, each one's own first; `UserError` where a file is not as it
    should be.
    """
    told = model.config.finetune
    return [
        validation_split(
            model.config,
            model.objective.by_name[entry.name],
            name,
            kinds.read_split(entry, name, told, True),
            tokenizer,
        )
        for entry in entries_of(model)
        for name in kinds.validation_splits(entry)
    ]


def assess(
    model: Finetuned, splits: Sequence[Split], tokenizer: Tokenizer
) -> tuple[Assessed, dict[str, float]]:
    """Predictions and figures of each split, and all figures by name; of several processes all get
    the same.
    """
    mesh = make_mesh(model.config.mesh)
    check_batch(model.config, mesh)
    return evaluate_splits(
        model.config, model.objective, mesh, model.params, splits, tokenizer.pad_id
    )


def predict_split(
    model: Finetuned, entry: kinds.Entry, split: str, tokenizer: Tokenizer
) -> tuple[list[Any], list[Any]]:
    """(examples, predictions) of a split, whose labels need not be known; of several processes all
    get the same.
    """
    config, task = model.config, model.objective.by_name[entry.name]
    examples = kinds.read_split(entry, split, config.finetune, False)
    rows = task.encode(examples, tokenizer, config.finetune.max_seq_length, targets=False)
    asked = Split(entry.name, "", examples, rows)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    found = evaluate_split(
        config, model.objective, mesh, model.params, asked, tokenizer.pad_id, labelled=False
    )
    return examples, found.predictions


def evaluate_finished(
    run_dir: epath.Path, tokenizer: Tokenizer
) -> tuple[epath.Path, dict[str, float]]:
    """Evaluate the chosen checkpoint of a finished run: its folder, and all metrics by name.

    Decision thresholds are chosen first where a task has one, and added to `result.json`. Of
    several processes all call this and get the same; the first one writes `evaluation.json`.
    """
    # The first process has written which checkpoint is chosen; the others may not see that yet.
    newest = str(checkpoint.find_checkpoint(run_dir)[1]) if hosts.is_first() else ""
    chosen = epath.Path(hosts.from_first(newest))
    config = checkpoint.read_checkpoint_config(chosen)
    model = load_finetuned(chosen, config)
    splits = validation_sets(model, tokenizer)
    assessed, metrics = assess(model, splits, tokenizer)
    if hosts.agree(hosts.is_first() and choose_thresholds(run_dir, assessed)):
        model = load_finetuned(chosen, config)
        assessed, metrics = assess(model, splits, tokenizer)
    if hosts.is_first():
        write_evaluation(run_dir, int(chosen.name), assessed, metrics)
    return chosen, metrics
