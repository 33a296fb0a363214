"""Command lines and damages, drawn from a seed: the same seed gives the same draws.

Command lines name the things of `workplace` by their relative paths.
"""

import dataclasses
import random
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal

from bertjax.cli.completion import command_of
from bertjax.cli.main import verb_module

BASES = [
    ["prepare", "config.py", "--output-dir", "new"],
    ["prepare", "config.py", "--output-dir", "prepared"],
    ["train", "config.py", "--run-dir", "run"],
    ["train", "config.py", "--run-dir", "new"],
    ["branch", "run", "--at", "2", "--phases", "steps=2", "--run-dir", "new"],
    ["replay", "run", "--step", "2"],
    ["replay", "run", "--find", "the cat"],
    ["average", "run", "--last", "2", "--to", "new"],
    ["finetune", "task.py", "--run-dir", "finetuned"],
    ["finetune", "task.py", "--run-dir", "new"],
    ["finetune", "sweep.py", "--run-dir", "swept", "--seeds", "0", "1"],
    ["predict", "finetuned", "the cat sees", "--task", "mood"],
    ["predict", "finetuned", "--split", "test", "--output-dir", "new"],
    ["zero-shot", "run", "the cat", "--labels", "cat", "dog"],
    ["evaluate", "run"],
    ["evaluate", "finetuned"],
    ["fill-mask", "run", "the [MASK] sees"],
    ["inspect", "prepared"],
    ["inspect", "run"],
    ["embed", "run", "texts.txt", "--output-file", "new.npy"],
    ["embed", "table", "texts.txt", "--output-file", "new.npy"],
    ["distill", "--static", "run", "--to", "new", "--dimensions", "3"],
    ["distill", "config.py", "--teacher", "run", "--run-dir", "new"],
    ["distill", "task.py", "--teacher", "finetuned", "--run-dir", "new"],
    ["import", "exported", "--to", "new"],
    ["export", "run", "--to", "new"],
    ["export", "finetuned", "--to", "new", "--task", "mood"],
    [
        "quantize",
        "finetuned",
        "--to",
        "new",
        "--task",
        "mood",
        "--max-loss",
        "50%",
        "--seconds",
        "0",
    ],
    ["grow", "run", "--to", "new", "--max-seq-length", "20"],
    ["prune", "run", "--to", "new", "--layers", "1"],
    ["grow", "run", "--to", "new", "--new-tokens", "new_words.txt"],
    ["grow", "run", "--to", "new", "--word-vectors", "vectors.txt"],
    ["compile", "config.py", "--run-dir", "new"],
    ["completion", "bash"],
]
"""Command lines that are right."""
# A real one is compiled for, which takes most of a minute.
NO_TOPOLOGY = ["--topology", "v9:1x1"]
"""What is added to each command line of `compile`: a topology that there is not."""

NUMBERS = [
    "0", "-1", "1", "2", "3", "7", "1.5", "-0.0", "1e-400", "1e400", "nan", "inf", "-inf", "", " ",
    "1e9", "1_0", "+1", "0x10", "٣", "½", "1,000", "2147483647", "2147483648", "4294967296",
    "9223372036854775808", "-9223372036854775809", "1" + "0" * 30, "1" * 5000,
]  # fmt: skip
WORDS = [
    "", " ", "true", "True", "None", "null", "[]", "{}", "()", "''", "\\", "%s", "{}{}", "{0.x}",
    "auto", "none", "é" * 300, "猫", "\udcff", "a\nb", "a\tb", "a\0b", "\x1b[31m", "-", "--", "=",
    "a=b", "a:b=c", "a=", "=a", "[MASK]", "mood", "$HOME", "*", "[", "a[",
]  # fmt: skip
PATHS = [
    "prepared", "run", "finetuned", "exported", "imported", "swept", "table", "corpus.txt", "corpus.jsonl",
    "texts.txt", "mood", "names", "config.py", "missing", "missing/missing", "corpus.txt/below",
    "a" * 300, "/".join(["deep"] * 3000), "~", "~nobody_of_this_name/x", ".", "..", "/", "/dev/null",
    "/proc/self/mem", "/proc/1/nothing", "pipe", "loop", "dangling", "file://x", "s3://", "gs://",
    "http://", "s3:/x", "nosuch://x/y", "tfds:", "tfds:no_such_set", "sql:", "sql:sqlite:///none.db",
    "sql:x", "hf:x", "a\0b", "a\nb", "\udcff", "\udcff/x", "run/checkpoints", "run/checkpoints/2",
    "run/checkpoints/2/state", "run/config.json", "prepared/manifest.json", "sample-*", "*.txt",
    "C:\\x", "x.npy", "x.parquet", "x.json", "x.gz", "mood=mood", "a:tagging=names",
]  # fmt: skip
WORK = {"train.steps", "finetune.epochs", "epochs", "data.dupe_factor"}
"""Options whose value is an amount of work: large numbers are right, and take for ever."""


@dataclass(frozen=True)
class Option:
    """An option of a verb."""

    name: str
    type: Any


def command_lines(seed: int, count: int) -> Iterator[list[str]]:
    """Yield `count` command lines, each with one to three mistakes or odd values."""
    rng = random.Random(f"command lines {seed}")
    options = {words[0]: options_of(words[0]) for words in BASES}
    for _ in range(count):
        base = rng.choice(BASES)
        words = list(base)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            words = rng.choice(_CHANGES)(rng, words, options[base[0]])
        # The last one counts, where the first has been lost.
        yield [*words, *NO_TOPOLOGY] if "compile" in words else words


def options_of(verb: str) -> list[Option]:
    """Return all options of a verb, those of its configuration too."""
    # `completion` has no option but --help; an unknown one takes its place.
    return list(_options(command_of(verb_module(verb)), "")) or [Option("x", str)]


def _options(kind: type, prefix: str) -> Iterator[Option]:
    for name, field_type in typing.get_type_hints(kind).items():
        if not dataclasses.is_dataclass(field_type):
            yield Option(prefix + name, field_type)
        else:
            # The fields of the configuration stand beside those of the command.
            section = typing.cast(type, field_type)
            yield from _options(section, prefix if name == "config" else f"{prefix}{name}.")


def _with_option(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    option = rng.choice(options)
    name = "--" + rng.choice([option.name, option.name.replace("_", "-")])
    value = _value(rng, option)
    if rng.random() < 0.2:
        return [*words, f"{name}={value}"]
    more = [_value(rng, option)] if rng.random() < 0.1 else []
    return [*words, name, value, *more]


def _with_other_word(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    """Put another value in the place of a word that is no option."""
    places = [i for i, word in enumerate(words) if i and not word.startswith("--")]
    if not places:
        return words
    place = rng.choice(places)
    value = rng.choice(rng.choice([PATHS, PATHS, WORDS, NUMBERS]))
    return [*words[:place], value, *words[place + 1 :]]


def _with_broken_option(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    name = "--" + rng.choice(options).name
    wrong = [name, name[:-1], f"{name}x", f"-{name[2:]}", f"{name}=", name.upper(), f"{name} 1"]
    return [*words, rng.choice(wrong)]


def _with_word_anywhere(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    place = rng.randrange(len(words) + 1)
    return [*words[:place], rng.choice(WORDS + PATHS), *words[place:]]


def _without_a_word(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    # Without the verb there is nothing to do but the help.
    place = rng.randrange(1, len(words)) if len(words) > 1 else 0
    return [*words[:place], *words[place + 1 :]] or ["inspect"]


def _with_option_twice(rng: random.Random, words: list[str], options: list[Option]) -> list[str]:
    return _with_option(rng, _with_option(rng, words, options), options)


_CHANGES = [
    _with_option, _with_option, _with_option, _with_option, _with_other_word, _with_other_word,
    _with_broken_option, _with_word_anywhere, _without_a_word, _with_option_twice,
]  # fmt: skip


def _value(rng: random.Random, option: Option) -> str:
    """Return a value: three in four of the option's own type, the others of any."""
    field_type = option.type
    if typing.get_origin(field_type) is UnionType:
        field_type = typing.get_args(field_type)[0]
    if typing.get_origin(field_type) is tuple:
        field_type = typing.get_args(field_type)[0]
    if rng.random() < 0.25:
        return rng.choice(rng.choice([PATHS, WORDS]))
    if typing.get_origin(field_type) is Literal:
        choices = list(typing.get_args(field_type))
        return rng.choice([*choices, choices[0].upper(), choices[0][:-1]])
    if field_type is bool:
        return rng.choice(["True", "False", "true", "1", ""])
    if field_type is str:
        return rng.choice(PATHS)
    if option.name in WORK:
        return rng.choice(NUMBERS[:9])
    if option.name == "data.workers":
        # 0 stands for all cores: each process imports for seconds.
        return rng.choice(["-1", "1", "1.5", "x"])
    return rng.choice(NUMBERS)


FILES = {
    "prepared": [
        ["inspect", "prepared"], ["prepare", "config.py"],
        ["train", "config.py", "--run-dir", "new"],
    ],
    "run": [
        ["inspect", "run"], ["train", "config.py", "--run-dir", "run"], ["evaluate", "run"],
        ["fill-mask", "run", "the [MASK] sees"], ["embed", "run", "texts.txt", "--output-file", "new.npy"],
        ["export", "run", "--to", "new"], ["grow", "run", "--to", "new", "--max-seq-length", "20"],
    ],
    "finetuned": [
        ["inspect", "finetuned"], ["evaluate", "finetuned"],
        ["finetune", "task.py", "--run-dir", "finetuned"],
        ["predict", "finetuned", "the cat sees", "--task", "mood"],
        ["predict", "finetuned", "--output-dir", "new"],
        ["quantize", "finetuned", "--to", "new", "--task", "mood", "--seconds", "0"],
    ],
    "swept": [["finetune", "sweep.py", "--run-dir", "swept", "--seeds", "0", "1"]],
    "exported": [
        ["import", "exported", "--to", "new"],
        ["finetune", "sweep.py", "--run-dir", "new", "--init-from", "exported"],
    ],
    "table": [["embed", "table", "texts.txt", "--output-file", "new.npy"]],
    "mood": [["finetune", "sweep.py", "--run-dir", "new"], ["evaluate", "finetuned"]],
    "names": [["finetune", "task.py", "--run-dir", "new"], ["predict", "finetuned", "--output-dir", "new"]],
    "corpus.txt": [["prepare", "config.py", "--output-dir", "new"]],
    "corpus.jsonl": [["prepare", "config.py", "--output-dir", "new", "--data.corpus", "corpus.jsonl"]],
    "texts.txt": [
        ["embed", "run", "texts.txt", "--output-file", "new.npy"],
        ["predict", "finetuned", "--text-file", "texts.txt", "--task", "mood"],
        ["zero-shot", "run", "--text-file", "texts.txt", "--labels", "cat", "dog"],
    ],
    "config.py": [["prepare", "config.py"], ["train", "config.py", "--run-dir", "run"]],
    "new_words.txt": [["grow", "run", "--to", "new", "--new-tokens", "new_words.txt"]],
    "vectors.txt": [["grow", "run", "--to", "new", "--word-vectors", "vectors.txt"]],
}  # fmt: skip
"""The things of the workplace, with the command lines that read them."""

KINDS = [
    "truncate", "flip", "empty", "bytes", "json", "json", "field", "field", "field", "missing_field",
    "deep", "folder", "missing", "dangling", "loop", "pipe", "bytes_inside", "line",
]  # fmt: skip
"""Ways to damage a file; `damage.apply` says what each is."""


@dataclass(frozen=True)
class Damage:
    """Damage to one file, and the command line that reads it."""

    thing: str
    """Name of the file, or of the folder that it is in, in the workplace."""
    file: float
    """Which of its files, as a fraction of their number."""
    kind: str
    place: float
    """Where in the file, as a fraction of its size or of its number of fields."""
    choice: int
    """Number of the value that is put there."""
    words: tuple[str, ...]


def damages(seed: int, count: int) -> Iterator[Damage]:
    """Yield `count` damages."""
    rng = random.Random(f"damages {seed}")
    for _ in range(count):
        thing = rng.choice(list(FILES))
        yield Damage(
            thing=thing,
            file=rng.random(),
            kind=rng.choice(KINDS),
            place=rng.random(),
            choice=rng.randrange(1 << 30),
            words=tuple(rng.choice(FILES[thing])),
        )
