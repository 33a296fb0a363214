"""A fine-tuned model on splits of its tasks: predictions, and their figures by name."""

from collections.abc import Sequence
from typing import Any

from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check
from bertjax.finetuning.evaluate import Assessed, Split, evaluate_split, evaluate_splits
from bertjax.finetuning.finetune import validation_split
from bertjax.finetuning.load import Finetuned
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks import registry as kinds
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


def described_lines(model: Finetuned, figures: dict[str, float]) -> list[str]:
    """The checkpoint and its figures, a line each."""
    return [
        f"checkpoint: {model.checkpoint}",
        *(f"{name}: {value:.4f}" for name, value in figures.items()),
    ]
