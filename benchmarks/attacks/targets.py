"""Files that are damaged, by kind, each with what reads it and whether a checksum covers it."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bertjax
from attacks import workplace
from attacks.in_process import Answer, answer_of, run
from attacks.result import ENDED_WELL, UNNOTICED, WRONG_NUMBER, Result
from attacks.values import values_of
from attacks.verbs import OUT
from bertjax.parallel.mesh import make_mesh
from bertjax.training.checkpoint import Checkpoints, find_checkpoint, read_checkpoint_config
from bertjax.training.step import abstract_state

TIMES = re.compile(r"\d[\d.,]*(?= (s|ms|lines/s)\b)|(?<=seconds: )\d[\d.,]*")
"""Times and speeds in what a verb prints."""


@dataclass(frozen=True)
class Target:
    """A kind of file."""

    pattern: str
    """Which files of the workplace."""
    read: Callable[[], Any]
    """Reads them in the working directory, and returns values that can be compared."""
    checksum: bool = True
    """True if a change must be noticed: something keeps a checksum of the file."""
    is_json: bool = False

    def files(self, folder: Path) -> list[Path]:
        """Return the files, relative to `folder`."""
        found = [path for path in folder.glob(self.pattern) if path.is_file()]
        return sorted(path.relative_to(folder) for path in found)


def verb(words: str) -> Callable[[], Any]:
    """Return a reader: a verb, whose values are what it prints and what it writes."""

    def read() -> Any:
        printed = TIMES.sub("", run(words.split()))
        written = [values_of(path) for path in sorted(Path().glob(f"{OUT}*"))]
        return [printed, written]

    return read


def state() -> list[str]:
    """Return digests of the newest state of `run`, as `train` restores it."""
    run_dir, folder = find_checkpoint("run")
    config = read_checkpoint_config(folder)
    checkpoints = Checkpoints(run_dir, keep=2)
    try:
        target = abstract_state(config, make_mesh(config.mesh, jax.devices()[:1]))
        return digests(checkpoints.restore(int(folder.name), target))
    finally:
        checkpoints.close()


def model(name: str) -> Callable[[], list[str]]:
    """Return a reader: a run's parameters and its configuration, as every program gets them."""

    def read() -> list[str]:
        loaded = bertjax.load_model(name)
        return [*digests(loaded.params), repr(loaded.config)]

    return read


def imported() -> list[Any]:
    """Return what `import` makes of `exported`."""
    run(["import", "exported", "--to", OUT])
    return [*model(OUT)(), values_of(Path(OUT) / "tokenizer")]


def digests(tree: Any) -> list[str]:
    """Return a digest of each array."""
    arrays = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


STEP = "checkpoints/6"
TARGETS = {
    "shard": Target("prepared/*.tfrecord", verb("inspect prepared")),
    "shard, evaluated": Target("prepared/validation-*.tfrecord", verb("evaluate run")),
    "manifest": Target("prepared/manifest.json", verb("evaluate run"), is_json=True),
    "manifest, inspected": Target(
        "prepared/manifest.json", verb("inspect prepared"), checksum=False, is_json=True
    ),
    "tokenizer of shards": Target("prepared/tokenizer/*", verb("inspect prepared")),
    "tokenizer of a run": Target(
        "run/tokenizer/*", verb(f"embed run texts.txt --output-file {OUT}.npy"), is_json=True
    ),
    "state": Target(f"run/{STEP}/state/**/*", state),
    "state, weights": Target(f"run/{STEP}/state/**/*", model("run")),
    "state, fine-tuned": Target("finetuned/checkpoints/*/state/**/*", model("finetuned")),
    "state, imported": Target("imported/checkpoints/0/state/**/*", model("imported")),
    "meta": Target(f"run/{STEP}/meta/metadata", model("run"), is_json=True),
    "rest of a checkpoint": Target(f"run/{STEP}/*", state),
    "config.json": Target("run/config.json", verb("train config.py --run-dir run"), is_json=True),
    "metrics.jsonl": Target("run/metrics.jsonl", verb("inspect run"), checksum=False, is_json=True),
    "metrics.jsonl, resumed": Target(
        "run/metrics.jsonl",
        verb("train config.py --run-dir run"),
        checksum=False,
        is_json=True,
    ),
    "result.json": Target(
        "finetuned/*.json",
        verb("finetune task.py --run-dir finetuned"),
        checksum=False,
        is_json=True,
    ),
    "sweep": Target(
        "swept/**/*.json",
        verb("finetune task.py --run-dir swept --seeds 1 2"),
        checksum=False,
        is_json=True,
    ),
    "exported weights": Target("exported/*.safetensors", imported, checksum=False),
    "exported JSON": Target("exported/*.json", imported, checksum=False, is_json=True),
    "exported vocabulary": Target("exported/*.txt", imported, checksum=False),
    "task": Target("mood/dev.tsv", verb("evaluate finetuned"), checksum=False),
    "task, test": Target(
        "mood/test.tsv", verb(f"predict finetuned --output-dir {OUT}"), checksum=False
    ),
    "corpus": Target("corpus.txt", verb(f"prepare config.py --output-dir {OUT}"), checksum=False),
    "texts": Target(
        "texts.txt", verb(f"embed run texts.txt --output-file {OUT}.npy"), checksum=False
    ),
    "word list": Target(
        "words.txt", verb(f"grow run --to {OUT} --new-tokens words.txt"), checksum=False
    ),
}


@lru_cache
def undisturbed(name: str, folder: Path) -> Answer:
    """Return what is read of files that nobody has damaged."""
    answers = []
    # Twice: values that change by themselves would show nothing.
    for _ in range(2):
        answers.append(answer_of(TARGETS[name].read, folder))
        workplace.restore(folder)
        if answers[-1].verdict != ENDED_WELL:
            raise SystemExit(f"{name}: {answers[-1].verdict}: {answers[-1].said}")
    if answers[0].values != answers[1].values:
        raise SystemExit(f"{name}: what is read twice differs: {[a.values for a in answers]}")
    return answers[0]


def judge(name: str, answer: Answer, expected: Answer, told: str) -> Result:
    """Return the result for damage: were other values read, and was it said?"""
    details = {"damage": told}
    if answer.verdict != ENDED_WELL:
        return Result(answer.verdict, answer.said, details)
    if answer.values == expected.values:
        return Result(ENDED_WELL, "the values are equal", details)
    if answer.warned and not expected.warned:
        # The checkpoint before a damaged one is used, which is said.
        return Result(ENDED_WELL, "other values, said by a warning", details)
    verdict = WRONG_NUMBER if TARGETS[name].checksum else UNNOTICED
    return Result(verdict, "other values, and nothing was said", details)
