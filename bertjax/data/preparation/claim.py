"""Claim of a folder by a preparation: its settings, sources and rules, compared at each start."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etils import epath

from bertjax.config import Config, to_dict
from bertjax.data.preparation import snapshots
from bertjax.data.preparation.splits import count
from bertjax.data.preparation.tokenize_corpus import TOKENIZER
from bertjax.data.records.manifest import WORK, Manifest, read_manifest
from bertjax.data.records.shard_files import check_exists
from bertjax.data.tokenizers.tokenizer import is_opened_from
from bertjax.errors import MismatchError, UserError, check, disk_errors
from bertjax.storage import check_locks, is_lock, read_json, write_whole

log = logging.getLogger("bertjax")

RULES = 3
"""Number of the rules by which settings and sources become bytes.

It grows whenever the same settings and sources give other bytes than before. 1, in files without
a number: a random B came from the documents of the same range only. 2: a held-out split had pairs
even where its documents have one sentence each.
"""
FIELDS_WITHOUT_EFFECT = (
    "workers",
    "prepared_dir",
    "mixture",
    "mixture_weights",
    "mixture_exponent",
    "skip_damaged",
    "objective",
    "causal_share",
)
"""Fields of `DataConfig` that do not change the bytes of the shards."""
MADE = (
    "train-*-of-*.tfrecord*",
    "validation-*-of-*.tfrecord*",
    TOKENIZER,
    "dataset_info.json",
    "features.json",
)
"""Patterns of what a preparation writes beside `.work`, before the manifest."""


def settings_of(config: Config) -> dict[str, Any]:
    """Return the fields of the configuration that the output depends on."""
    data = to_dict(config.data)
    # The order of the names has no effect on the output.
    data["corpus"] = sorted(data["corpus"])
    for name in FIELDS_WITHOUT_EFFECT:
        del data[name]
    return {"seed": config.seed, "tokenizer": to_dict(config.tokenizer), "data": data}


def read_finished(config: Config, folder: epath.Path, inputs: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest of a finished folder, None for another.

    Raises `UserError` where it was made from other settings, sources or another vocabulary, or
    lacks a shard.
    """
    finished = read_manifest(folder)
    if finished is not None:
        made_from = {"settings": finished.settings, "sources": finished.sources}
        check_same_inputs(folder, made_from, inputs)
        check_same_vocabulary(config, folder, finished.tokenizer_fingerprint)
        for shard in finished.shards:
            check_exists(folder / shard.name, shard)
    return finished


def claim(folder: epath.Path, inputs: dict[str, Any]) -> None:
    """Reserve the folder for a preparation with these inputs: its `settings` and `sources`.

    Results of an earlier start with the same inputs are kept if it had the same rules; else they
    are removed, and a warning is logged. Raises `UserError` if the folder has other files.
    """
    path = folder / WORK / "plan.json"
    with disk_errors(path):
        if path.exists():
            before = read_json(path)
            rules = before.pop("rules", 1)
            check_same_inputs(folder, before, inputs)
            if rules == RULES:
                return
            log.warning(
                "%s: begun under other rules (number %s, now %d); all of it is made anew",
                folder,
                rules,
                RULES,
            )
            # The plan stays until all is gone: after a kill it is found again.
            _remove_results(folder, path)
        else:
            # If the process is killed between the two steps below, an empty .work is left. So .work
            # does not count as another file, nor does the lock.
            present = list(folder.iterdir()) if folder.exists() else []
            has_other_files = any(path.name != WORK and not is_lock(path) for path in present)
            check(
                not has_other_files,
                where=str(folder),
                found="files that no preparation made",
                expected="an empty or new folder",
            )
            path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"rules": RULES, **inputs}, indent=2).encode())


@contextmanager
def released_if_refused(folder: epath.Path) -> Iterator[None]:
    """Undo `claim` if the block raises `UserError`, unless there are results of an earlier start.

    So other settings may be tried at once, and no work is lost.
    """
    try:
        yield
    except UserError:
        check_locks(folder)
        plan = folder / WORK / "plan.json"
        no_results = {plan.name, count.FOLDER, snapshots.FOLDER}
        results = {path.name for path in plan.parent.iterdir()} - no_results
        # The plan is gone already where a stage of the block was refused.
        if plan.exists() and not results and not (folder / TOKENIZER).exists():
            # Counts of documents too: those of other settings are others.
            _remove_results(folder, plan)
            plan.unlink()
        raise


@contextmanager
def discarded_if_refused(
    folder: epath.Path, refusal: type[UserError] = MismatchError
) -> Iterator[None]:
    """Undo `claim` and remove all results if the block raises `refusal`.

    The same settings and sources give the same `MismatchError` at each start. So the way out is
    another setting or source, which the folder would not take any more.
    """
    try:
        yield
    except refusal:
        check_locks(folder)
        plan = folder / WORK / "plan.json"
        _remove_results(folder, plan)
        # Last: until then what is left is found to be of this preparation.
        plan.unlink()
        raise


def _remove_results(folder: epath.Path, plan: epath.Path) -> None:
    """Remove all that a preparation wrote but its plan; files of others stay.

    A snapshot of a database stays too. It is a source and no result, and its name depends on its
    query.
    """
    kept = (plan.name, snapshots.FOLDER)
    made = [path for path in plan.parent.iterdir() if path.name not in kept]
    for pattern in MADE:
        made += folder.glob(pattern)
    for path in made:
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink()


def check_same_inputs(
    folder: epath.Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise `UserError` unless all settings and sources are as before.

    Settings that an earlier version did not have count as their defaults.
    """
    settings = _with_defaults(before.get("settings", {}), settings_of(Config()))
    _check_same(folder, {**before, "settings": settings}, now)


def _with_defaults(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the settings, with the default of each field that is missing at any depth."""
    completed = {**defaults, **settings}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(completed[name], dict):
            completed[name] = _with_defaults(completed[name], default)
    return completed


def _check_same(
    folder: epath.Path, before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> None:
    """Raise `UserError` unless all values are as before.

    `prefix` is the path of these values in the inputs, such as `settings.data.`.
    """
    for name in {**before, **now}:
        value, new_value = before.get(name), now.get(name)
        if isinstance(value, dict) and isinstance(new_value, dict):
            _check_same(folder, value, new_value, f"{prefix}{name}.")
        elif prefix == "sources.":
            check(
                value == new_value,
                where=f"{folder}, made from {name}",
                found="a source added, removed or changed since",
                expected="the same sources, or another folder",
            )
        else:
            field = f"{prefix.removeprefix('settings.')}{name}"
            check(
                value == new_value,
                where=f"{folder}, made with {field} {value}",
                found=f"{new_value} now",
                expected="the same settings, or another folder",
            )


def check_same_vocabulary(config: Config, folder: epath.Path, fingerprint: str) -> None:
    """Raise `UserError` if the user's vocabulary file has changed since then."""
    # The settings that were compared before hold the file's name only.
    file = config.tokenizer.vocab_file
    if not file:
        return
    check(
        is_opened_from(fingerprint, config.tokenizer),
        where=f"{folder}, made with {file}",
        found="other entries, or other tokens around texts, in it now",
        expected="the same entries, or another folder",
    )
