"""`bertjax predict RUN [--split test] [--output-dir DIR] [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config


@dataclass(frozen=True)
class PredictCommand:
    """Write what a fine-tuned model says of its tasks' test sets, or of files given by --finetune.test-files."""

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
    from bertjax.parallel import failures, hosts

    with failures.together():
        said = _predicted(subject, rest)
        if hosts.is_first():
            print("\n".join(said))
    return 0


def _predicted(subject: str, rest: Sequence[str]) -> list[str]:
    """The files that were written, a line each; of several processes all call this, and the first one writes."""
    from etils import epath

    from bertjax.data.tokenizer import load_tokenizer
    from bertjax.parallel import hosts
    from bertjax.tasks import kinds
    from bertjax.tasks.assess import predict_split
    from bertjax.tasks.models import load_finetuned
    from bertjax.tasks.predictions import write_predictions

    command = PredictCommand()

    def adjust(config: Config) -> Config:
        nonlocal command
        command = parse("predict RUN", PredictCommand(config=config), rest)
        return command.config

    model = load_finetuned(subject, adjust)
    tokenizer = load_tokenizer(model.run_dir / "tokenizer")
    folder = epath.Path(command.output_dir) if command.output_dir else model.run_dir / "predictions"
    said = [f"checkpoint: {model.checkpoint}"]
    told = model.config.finetune
    for entry in (kinds.entry_of(text, told) for text in told.tasks):
        splits = kinds.test_splits(entry) if command.split == "test" else (command.split,)
        for split in splits:
            examples, predictions = predict_split(model, entry, split, tokenizer)
            if hosts.is_first():
                made = write_predictions(folder, entry, split, predictions, examples, told)
                said += [f"{entry.name}, {split}: {len(examples):,} examples: {path}" for path in made]
    return said
