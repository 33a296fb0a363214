"""`bertjax predict RUN [TEXT ...] [--text-file FILE] [--split test] [--dotted.field VALUE ...]`"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bertjax.cli.arguments import (
    log_of_verb,
    need,
    parse,
    quiet_libraries,
    split_options,
    split_subject,
    wants_help,
)
from bertjax.config import Config
from bertjax.errors import check

ENCODING = "--finetune.encoding"
UTF8 = "utf-8"

if TYPE_CHECKING:
    from bertjax.finetuning.load import Finetuned
    from bertjax.finetuning.predict_texts import Answer


@dataclass(frozen=True)
class PredictCommand:
    """Write a fine-tuned model's predictions for the test sets of its tasks, or for the files in
    --finetune.test-files; or print those for texts.
    """

    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts to predict; write them before the options, or after -- at the end. A tab is between
    the two texts of a pair, between question and paragraph, between a context and each ending.
    Words to tag are separated by spaces.
    """
    text_file: str = ""
    """File with one such text on each line, instead of texts; may be .gz, .bz2, .xz or .zst;
    - is standard input. It is UTF-8, whatever the run's own files are, unless this command has
    --finetune.encoding. The answers are printed, one a line.
    """
    task: str = ""
    """Name of the task that predicts texts, if the model has several."""
    json: bool = False
    """Print a JSON object for each text, with text, prediction and all probabilities."""
    split: str = "test"
    """test, validation or train; for MNLI, test stands for test_matched and test_mismatched."""
    output_dir: str = ""
    """Folder for the predictions of a split; by default `predictions` in the run's folder. The
    files are named TASK-SPLIT.ENDING; files for GLUE have its names.
    """
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def run(words: Sequence[str]) -> int:
    """Run the verb; return the exit status."""
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, "predict", "a fine-tuned run or checkpoint folder", rest)
    if not subject:
        # Only with `--help`: it prints and ends the process.
        parse("predict RUN", PredictCommand(), rest)
    quiet_libraries()
    from bertjax.parallel import compile_cache, failures

    with failures.end_together(), log_of_verb():
        compile_cache.start()
        from bertjax.api.evaluate import saved_config

        options, more_texts = split_options(rest)
        # The defaults of the options are the checkpoint's own settings, so that is read first.
        command = parse("predict RUN", PredictCommand(config=saved_config(subject)), options)
        texts = (*command.texts, *more_texts)
        # The run's own encoding is that of its files; a pipe has another one only if it is named.
        names_encoding = any(word.partition("=")[0] == ENCODING for word in options)
        _check(command, texts, names_encoding)
        if texts or command.text_file:
            encoding = command.config.finetune.encoding if names_encoding else UTF8
            _print_answers(subject, command, texts, encoding)
        else:
            _write_files(subject, command)
    return 0


def _check(command: PredictCommand, texts: Sequence[str], names_encoding: bool) -> None:
    """Raise `UserError` for options that cannot go together."""
    if not texts and not command.text_file:
        for name, value in (("--task", command.task), ("--json", command.json)):
            check(not value, where=name, found=value, expected="texts or --text-file with it")
        return
    check(
        not (texts and command.text_file),
        where="predict: texts and --text-file",
        found="both",
        expected="one of them",
    )
    check(
        not (texts and names_encoding),
        where=ENCODING,
        found=command.config.finetune.encoding,
        expected="none with texts as arguments, whose encoding is that of the terminal",
    )
    for text in texts:
        check(
            # The name would get an answer like any text, one that means nothing.
            not (os.path.splitext(text)[1] and os.path.isfile(text)),
            where=text,
            found="the name of a file",
            expected="a text; --text-file has the file of texts",
        )
    defaults = PredictCommand()
    for name in ("output_dir", "split"):
        value = getattr(command, name)
        check(
            value == getattr(defaults, name),
            where=f"--{name.replace('_', '-')}",
            found=value,
            expected="none with texts, whose predictions are printed",
        )


def _write_files(subject: str, command: PredictCommand) -> None:
    from bertjax.api.evaluate import predict
    from bertjax.parallel import hosts
    from bertjax.training.checkpoint import find_checkpoint

    run_dir, checkpoint = find_checkpoint(subject)
    predicted = predict(
        subject,
        command.split,
        output_dir=command.output_dir or run_dir / "predictions",
        config=command.config,
    )
    if not hosts.is_first():
        return
    print(f"checkpoint: {checkpoint}")
    for part in predicted:
        for path in part.files:
            print(f"{part.task}, {part.split}: {len(part.examples):,} examples: {path}")


def _print_answers(
    subject: str, command: PredictCommand, texts: Sequence[str], encoding: str
) -> None:
    from bertjax.finetuning.load import load_finetuned
    from bertjax.inference.vector_files import STDIN, read_lines

    lines = iter(texts or read_lines(command.text_file, encoding))
    # Before the model is loaded: nothing to predict is told at once.
    first = next(lines, None)
    check(
        first is not None,
        where="standard input" if command.text_file == STDIN else command.text_file,
        found="no text",
        expected="one or more, each on a line",
    )
    model = load_finetuned(subject, command.config)
    for text, answer in _answers(model, command, chain([first or ""], lines)):
        print(_as_json(text, answer) if command.json else "\t".join(answer.cells))


def _answers(
    model: "Finetuned", command: PredictCommand, lines: Iterable[str]
) -> Iterator[tuple[str, "Answer"]]:
    """Yield each line with its answer, in order."""
    from bertjax.finetuning.predict_texts import entry_for_texts, predict_lines
    from bertjax.inference.vector_files import windows

    entry = entry_for_texts(model, command.task)
    done = 0
    for window in windows(lines, command.config.train.batch_size):
        answers = predict_lines(model, entry, window, first=done + 1)
        yield from zip(window, answers, strict=True)
        done += len(window)


def _as_json(text: str, answer: "Answer") -> str:
    return json.dumps(_finite({"text": text, **answer.fields}), ensure_ascii=False)


def _finite(value: Any) -> Any:
    """Return a value for JSON with null for NaN and infinity, which JSON cannot express."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
