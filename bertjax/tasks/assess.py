"""A fine-tuned model on splits of its tasks: predictions, and their figures by name."""

from collections.abc import Sequence
from typing import Any

from bertjax.data.tokenizer import Tokenizer
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks import kinds
from bertjax.tasks.evaluation import Evaluated, Split, evaluate_split, named_figures
from bertjax.tasks.finetune import encoder_rows, labelled_rows
from bertjax.tasks.models import Finetuned
from bertjax.tasks.task import Task
from bertjax.train.step import check_batch

Assessed = list[tuple[Task, Split, Evaluated]]


def validation_sets(model: Finetuned, tokenizer: Tokenizer) -> list[Split]:
    """The validation sets of the tasks, each one's own first; `UserError` where a file is not as it should be."""
    told, found = model.config.finetune, []
    for entry in (kinds.entry_of(text, told) for text in told.tasks):
        task = model.objective.by_name[entry.name]
        for number, name in enumerate(kinds.validation_splits(entry)):
            examples = kinds.read_split(entry, name, told, True)
            rows = labelled_rows(model.config, task, examples, tokenizer)
            found.append(Split(entry.name, name.partition("_")[2] if number else "", examples, rows))
    return found


def assess(model: Finetuned, splits: Sequence[Split], tokenizer: Tokenizer) -> tuple[Assessed, dict[str, float]]:
    """Predictions and figures of each split, and all figures by name; of several processes all get the same."""
    mesh = make_mesh(model.config.mesh)
    check_batch(model.config, mesh)
    found = [
        (
            model.objective.by_name[split.task],
            split,
            evaluate_split(model.config, model.objective, mesh, model.params, split, tokenizer.pad_id, labelled=True),
        )
        for split in splits
    ]
    figures = {(split.task, split.name): evaluated.figures for _, split, evaluated in found}
    return found, named_figures(figures, model.objective.tasks)


def predict_split(
    model: Finetuned, entry: kinds.Entry, split: str, tokenizer: Tokenizer
) -> tuple[list[Any], list[Any]]:
    """(examples, predictions) of a split, whose labels need not be known; of several processes all get the same."""
    config, task = model.config, model.objective.by_name[entry.name]
    examples = kinds.read_split(entry, split, config.finetune, False)
    rows = encoder_rows(config, task.rows(examples, tokenizer, config.finetune.max_seq_length, targets=False))
    asked = Split(entry.name, "", examples, rows)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    found = evaluate_split(config, model.objective, mesh, model.params, asked, tokenizer.pad_id, labelled=False)
    return examples, found.predictions


def described_lines(model: Finetuned, figures: dict[str, float]) -> list[str]:
    """The checkpoint and its figures, a line each."""
    return [f"checkpoint: {model.checkpoint}", *(f"{name}: {value:.4f}" for name, value in figures.items())]
