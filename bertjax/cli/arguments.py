"""Command lines: a configuration, then any field by its dotted name, parsed by tyro."""

import contextlib
import dataclasses
import io
import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from bertjax.config import Config, from_dict, load_config, preset_name, to_dict
from bertjax.config.field_types import field_types, field_value
from bertjax.config.sql_source import without_password
from bertjax.errors import UserError, nearest
from bertjax.progress import Progress, silent

Command = TypeVar("Command")


class Configured(NamedTuple):
    """A command line that begins with a configuration."""

    subject: str
    """The configuration's file or name."""
    command: Any
    """The command; its `config` has the values that the command line sets."""
    overrides: frozenset[str]
    """Dotted names of these fields."""


def split_subject(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the first word and the rest; if the first word is an option, return '' and all words.

    The first word names a configuration, a run or a folder.
    """
    if words and not words[0].startswith("-"):
        return words[0], list(words[1:])
    return "", list(words)


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before `--` and those after it."""
    if "--" not in words:
        return list(words), []
    separator = words.index("--")
    return list(words[:separator]), list(words[separator + 1 :])


def wants_help(words: Sequence[str]) -> bool:
    """Return whether `--help` is among the words."""
    return "-h" in words or "--help" in words


def parse(verb: str, default: Command, words: Sequence[str]) -> Command:
    """Return `default`, a dataclass, with the fields that `words` set.

    Raises `UserError` for an unknown field (with the nearest valid name), a missing or impossible
    value, or a value out of range; `--help` prints every field and exits with 0.
    """
    import tyro

    complaint = io.StringIO()
    try:
        # tyro explains a mistake in a box on stderr; here it is one line.
        with contextlib.redirect_stderr(complaint):
            command, unknown = tyro.cli(
                type(default),
                default=default,
                args=_with_values(words, default),
                prog=f"bertjax {verb}",
                return_unknown_args=True,
                # Booleans take True or False; tyro's own way is --field and --no-field.
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):  # of --help
            raise
        raise UserError(_first_sentence(complaint.getvalue())) from None
    _check_values(command)
    if unknown:
        names = [f"--{name}" for name, _ in _options(command)]
        # Without its value, which may hold a password.
        word = unknown[0].partition("=")[0]
        name = word.replace("_", "-")
        raise UserError(
            f"{without_password(word)}: no such option of `bertjax {verb}`{nearest(name, names)}"
        )
    return command


def _check_values(command: Any) -> None:
    """Raise `UserError` for a number beyond 64 bits, and for text with a null character.

    The fields of a configuration are checked where it is made.
    """
    kind: type = type(command)
    kinds = field_types(kind)
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if not dataclasses.is_dataclass(value):
            field_value(kinds[field.name], value, f"--{field.name.replace('_', '-')}")


def parse_subject(
    verb: str,
    default: Command,
    words: Sequence[str],
    what: str,
    subject_name: str = "RUN",
    *,
    texts: str = "",
) -> tuple[str, Command]:
    """Parse a command line that begins with a run, a checkpoint or another folder.

    `texts` is the name of a field of texts: words after `--` are added to it, whatever they begin
    with.

    Raises `UserError` with `what`, the expected folder, if there is none and no `--help`.
    """
    subject, rest = split_subject(words)
    rest, more = split_options(rest) if texts else (rest, [])
    if not wants_help(rest):
        need(subject, verb, what, rest)
    command: Any = parse(f"{verb} {subject_name}", default, rest)
    if more:
        command = dataclasses.replace(command, **{texts: (*getattr(command, texts), *more)})
    return subject, command


def parse_configured(verb: str, command: Callable[..., Any], words: Sequence[str]) -> Configured:
    """Parse a command line that begins with a configuration; `command` is the class of options."""
    subject, rest = split_subject(words)
    if not wants_help(rest):
        need(subject, verb, "a configuration file", rest)
    config = load_config(subject) if subject else Config()
    if wants_help(rest):
        # The help prints each field's value.
        config = from_dict(Config, to_dict(config))
    parsed = parse(f"{verb} CONFIG", command(config=config), rest)
    fields = {name.replace("-", "_") for name, _ in _options(parsed.config)}
    return Configured(subject, parsed, _fields_set(rest) & fields)


def _fields_set(words: Iterable[str]) -> frozenset[str]:
    """Return the dotted names of the fields that the options among `words` set."""
    names = set()
    for word in words:
        if word.startswith("--"):
            name, _, _ = word.removeprefix("--").partition("=")
            names.add(name.replace("-", "_"))
    return frozenset(names)


def _with_values(words: Sequence[str], default: Any) -> list[str]:
    """Return the words, with `True` inserted after each boolean option without a value."""
    # tyro's flags are switched off (see `parse`), so each option needs a value.
    booleans = {f"--{name}" for name, value in _options(default) if isinstance(value, bool)}
    completed = []
    # The last word has none after it: the added `--` takes that place.
    for word, following in itertools.pairwise([*words, "--"]):
        completed.append(word)
        if word.replace("_", "-") in booleans and following.startswith("--"):
            completed.append("True")
    return completed


def fields_of(kind: type[Command], command: object) -> Command:
    """Return a dataclass made of the fields of a verb's command that have its names."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(command, name) for name in names})


def need(subject: str, verb: str, what: str, rest: Sequence[str] = ()) -> str:
    """Return `subject`; raise `UserError` with `what`, which the verb expects, if it is empty.

    `rest` are the words in its place: an option that stands first, and what follows it.
    """
    if subject:
        return subject
    # Without its value, which may hold a password.
    given = f"{rest[0].partition('=')[0]} first" if rest else "nothing given"
    place = "before all options" if rest else "first"
    raise UserError(f"bertjax {verb}: {given}, expected {what} {place} (see bertjax {verb} --help)")


def run_name(config_path: str) -> str:
    """Return the default name of a run: that of the preset, with _ for /, or that of the file.

    The name of a file is without its folder and ending.
    """
    preset = preset_name(config_path)
    # The whole name: presets of several families are called `base`.
    return preset.replace("/", "_") if preset else PurePath(config_path).stem


def quiet_libraries() -> None:
    """Keep the start-up messages of TensorFlow and Orbax off the terminal; errors still show."""
    import os

    # Defaults only: a user who wants these messages sets the variables.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN prints a banner, and does not help: TensorFlow only copies data here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Orbax logs by absl.
    import absl.logging

    # The error of one failed task is reported; Orbax would also log all other failed tasks.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    absl.logging.set_verbosity(absl.logging.FATAL)
    absl.logging.set_stderrthreshold("fatal")
    # Where stdout is no terminal Python keeps lines back until a block is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


@contextlib.contextmanager
def run_terminal() -> Iterator[Progress]:
    """Show the log and the progress of a run on the terminal; yield the progress callback.

    If there are several processes, only the first one shows them; the others show warnings.
    """
    from bertjax.parallel import hosts
    from bertjax.report.terminal import log_to_terminal, terminal_progress

    if not hosts.is_first():
        with log_to_terminal(hosts.process_name()):
            yield silent
        return
    with log_to_terminal(), terminal_progress() as progress:
        yield progress


@contextlib.contextmanager
def log_of_verb() -> Iterator[None]:
    """Write the log of a verb that shows no progress to stderr; stdout has its answers alone.

    If there are several processes, only the first one writes it; the others write warnings.
    """
    from bertjax.parallel import hosts
    from bertjax.report.terminal import log_to_terminal

    with log_to_terminal("" if hosts.is_first() else hosts.process_name(), always=True):
        yield


def _first_sentence(box: str) -> str:
    """Return tyro's explanation without its frame and its hints."""
    lines = []
    for line in box.splitlines():
        inner = line.strip("│ ").strip()
        if inner.startswith("──"):
            break
        if inner and not inner.startswith(("╭", "╰")):
            lines.append(inner)
    return re.sub(r"\s+", " ", " ".join(lines)) or "the command line cannot be read"


def _options(command: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted name, value) of every field; fields of `config` get no prefix `config.`."""
    options: list[tuple[str, Any]] = []
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        name = field.name.replace("_", "-")
        if not dataclasses.is_dataclass(value):
            options.append((prefix + name, value))
        elif field.name == "config":
            options += _options(value, prefix)
        else:
            options += _options(value, f"{prefix}{name}.")
    return options
