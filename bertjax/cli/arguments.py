"""Command lines: a configuration file, then any field by its dotted name, parsed by tyro."""

import contextlib
import dataclasses
import difflib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, TypeVar

from bertjax.config import Config, load_config
from bertjax.errors import UserError, check

Command = TypeVar("Command")


def split_subject(words: Sequence[str]) -> tuple[str, list[str]]:
    """The first word if it is no option (a configuration, run or folder), and the rest; '' where
    there is none.
    """
    if words and not words[0].startswith("-"):
        return words[0], list(words[1:])
    return "", list(words)


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--` and those after it."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def wants_help(words: Sequence[str]) -> bool:
    """Whether `--help` is among the words."""
    return "-h" in words or "--help" in words


def parse(verb: str, default: Command, words: Sequence[str]) -> Command:
    """`default`, a dataclass, with the fields that `words` set.

    Raises `UserError` for an unknown field (with the nearest valid name), a missing or
    impossible value, or a value out of range; `--help` prints every field and exits with 0.
    """
    import tyro

    said = io.StringIO()
    try:
        # tyro explains a mistake in a box on stderr; the house says it in one line.
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(
                type(default),
                default=default,
                args=_switches_on(words, default),
                prog=f"bertjax {verb}",
                return_unknown_args=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_first_sentence(said.getvalue())) from None
    if unknown:
        names = [f"--{name}" for name, _ in _options(made)]
        raise UserError(
            f"{unknown[0]}: no such option of `bertjax {verb}`{nearest(unknown[0], names)}"
        )
    return made


def _switches_on(words: Sequence[str], default: Any) -> list[str]:
    """The words, with `True` after each name of a yes-or-no field that no value follows."""
    switches = {f"--{name}" for name, value in _options(default) if isinstance(value, bool)}
    following = [*words, "--"][1:]
    return [
        part
        for word, after in zip(words, following, strict=True)
        for part in (
            [word, "True"]
            if word.replace("_", "-") in switches and after.startswith("--")
            else [word]
        )
    ]


def parse_configured(
    verb: str,
    command: Callable[..., Command],
    words: Sequence[str],
    init_run: Callable[[Command], str] = lambda made: made.config.init_from,  # type: ignore[attr-defined]
) -> tuple[str, Command]:
    """The configuration file that `words` begin with, and `command(config=...)` made from it and
    the rest.

    Where it takes the model from `init_from`, `init_run` gives the run that this is, or that was
    made of it.
    """
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, verb, "a configuration file")
    config = load_config(subject) if subject else Config()
    made = parse(f"{verb} CONFIG", command(config=config), rest)
    given: Config = made.config  # type: ignore[attr-defined]
    if given.model_from_init:
        check(
            given.init_from,
            where="--init-from",
            found="nothing",
            expected="a folder to take the model from, as model_from_init says",
        )
        # Parsed again: what the words say of the model goes before what its folder says.
        made = parse(
            f"{verb} CONFIG", command(config=_like_init(config, init_run(made), verb)), rest
        )
    return subject, made


def _like_init(config: Config, init_from: str, verb: str) -> Config:
    from bertjax.training.checkpoint import find_checkpoint, read_checkpoint_config

    run_dir, folder = find_checkpoint(init_from)
    found = read_checkpoint_config(folder)
    tokenizer = dataclasses.replace(found.tokenizer, vocab_file=str(run_dir / "tokenizer"))
    if verb != "finetune":
        return dataclasses.replace(config, model=found.model, tokenizer=tokenizer)
    # Layers that are written out would take minutes to compile for each of its lengths.
    model = dataclasses.replace(found.model, scan_unroll=1)
    # What fine-tuning has no part in stays as the model was pretrained on.
    return dataclasses.replace(config, model=model, tokenizer=tokenizer, data=found.data)


def nearest(word: str, names: Iterable[str]) -> str:
    """`; the nearest is NAME`, or nothing where no name is near."""
    found = difflib.get_close_matches(
        word.split("=")[0].replace("_", "-"), list(names), n=1, cutoff=0.5
    )
    return f"; the nearest is {found[0]}" if found else ""


def need(subject: str, verb: str, what: str) -> str:
    """`subject`, or a `UserError` that says what the verb wants first."""
    if not subject:
        raise UserError(
            f"bertjax {verb}: nothing given, expected {what} first (see bertjax {verb} --help)"
        )
    return subject


def run_name(config_path: str) -> str:
    """The name that outputs of a configuration file get by default: its own, without ending."""
    return PurePath(config_path).stem


def quiet_libraries() -> None:
    """Keep TensorFlow's and Orbax's start-up chatter off the terminal; errors still show."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault(
        "TF_ENABLE_ONEDNN_OPTS", "0"
    )  # what TensorFlow does here is copying; with it comes a banner
    import absl.logging

    # Orbax tells at length of each task that failed beside the one whose error we report.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    absl.logging.set_verbosity(absl.logging.FATAL)
    absl.logging.set_stderrthreshold("fatal")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _first_sentence(box: str) -> str:
    """tyro's explanation without its frame and its hints."""
    lines = []
    for line in box.splitlines():
        inner = line.strip("│ ").strip()
        if inner.startswith("──"):
            break
        if inner and not inner.startswith(("╭", "╰")):
            lines.append(inner)
    return re.sub(r"\s+", " ", " ".join(lines)) or "the command line cannot be read"


def _options(command: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    found = []
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            found += _options(value, prefix if field.name == "config" else f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found
