"""`bertjax predict RUN [--split test] [--output-dir DIR] [--dotted.field VALUE ...]`"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from bertjax.cli.arguments import need, parse, quiet_libraries, split_subject, wants_help
from bertjax.config import Config


@dataclass(frozen=True)
class PredictCommand:
    """Write a fine-tuned model's predictions for the test sets of its tasks, or for the files in
    --finetune.test-files.
    """

    split: str = "test"
    """test, validation or train; for MNLI, test stands for test_matched and test_mismatched."""
    output_dir: str = ""
    """Folder for the predictions; by default `predictions` in the run's folder."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "predict", "a fine-tuned run or checkpoint folder")
    if not subject:
        # Only with `--help`: it prints and ends the process.
        parse("predict RUN", PredictCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import compile_cache, failures, hosts

    with failures.end_together():
        compile_cache.start()
        from bertjax.api.evaluate import predict, saved_config
        from bertjax.training.checkpoint import find_checkpoint

        # The defaults of the options are the checkpoint's own settings, so that is read first.
        command = parse("predict RUN", PredictCommand(config=saved_config(subject)), rest)
        run_dir, checkpoint = find_checkpoint(subject)
        predicted = predict(
            subject,
            command.split,
            output_dir=command.output_dir or run_dir / "predictions",
            config=command.config,
        )
        if hosts.is_first():
            print(f"checkpoint: {checkpoint}")
            for part in predicted:
                for path in part.files:
                    print(f"{part.task}, {part.split}: {len(part.examples):,} examples: {path}")
    return 0
