"""`bertjax predict RUN [--split test] [--output-dir DIR] [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config
from bertjax.errors import check

if TYPE_CHECKING:
    from bertjax.tasks.registry import Entry


@dataclass(frozen=True)
class PredictCommand:
    """Write what a fine-tuned model says of its tasks' test sets, or of files given by
    --finetune.test-files.
    """

    split: str = "test"
    """test, validation or train; MNLI has test_matched and test_mismatched, which test stands for."""
    output_dir: str = ""
    """Where the predictions go; by default `predictions` in the run's folder."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "predict", "a fine-tuned run or checkpoint folder")
    if not subject:
        parse("predict RUN", PredictCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together():
        compile_cache.start()
        said = _predicted(subject, rest)
        if hosts.is_first():
            print("\n".join(said))
    return 0


def _predicted(subject: str, rest: Sequence[str]) -> list[str]:
    """The files that were written, a line each; of several processes all call this, and the first
    one writes.
    """
    from etils import epath

    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.finetuning.evaluate_checkpoint import entries_of, predict_split
    from bertjax.finetuning.load import load_finetuned
    from bertjax.finetuning.predictions import write_predictions
    from bertjax.parallel import hosts

    command = PredictCommand()

    def adjust(config: Config) -> Config:
        nonlocal command
        command = parse("predict RUN", PredictCommand(config=config), rest)
        return command.config

    model = load_finetuned(subject, adjust)
    tokenizer = load_tokenizer(model.run_dir / "tokenizer")
    folder = epath.Path(command.output_dir) if command.output_dir else model.run_dir / "predictions"
    # All of them before any is written.
    found = [
        (entry, split, *predict_split(model, entry, split, tokenizer))
        for entry in entries_of(model)
        for split in _splits(entry, command.split)
    ]
    said = [f"checkpoint: {model.checkpoint}"]
    for entry, split, examples, predictions in found if hosts.is_first() else []:
        made = write_predictions(folder, entry, split, predictions, examples, model.config.finetune)
        said += [f"{entry.name}, {split}: {len(examples):,} examples: {path}" for path in made]
    return said


def _splits(entry: "Entry", asked: str) -> tuple[str, ...]:
    from bertjax.tasks import registry as kinds

    parts = {
        "test": kinds.test_splits(entry),
        "validation": kinds.validation_splits(entry),
        "train": ("train",),
    }
    known = {part for all_parts in parts.values() for part in all_parts} | set(parts)
    check(
        asked in known, where="--split", found=asked, expected=f"one of {', '.join(sorted(known))}"
    )
    return parts.get(asked, (asked,))
