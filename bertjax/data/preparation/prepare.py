"""From a corpus to a prepared folder: train a vocabulary, tokenise each piece, gather by content,
write shards.

Which shard a document goes to follows from its content, so the output does not depend on the
order of the files or the number of workers. What is done is kept: started again after a kill,
only what is missing is made.
"""

import json
import os
from collections import Counter
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, to_dict
from bertjax.data.corpus import cleaning
from bertjax.data.corpus import sources as corpus
from bertjax.data.corpus.work_units import Piece, cut
from bertjax.data.preparation import build_shard as build
from bertjax.data.preparation import near_duplicates
from bertjax.data.preparation import vocabulary_sample as sample
from bertjax.data.preparation.build_shard import Written
from bertjax.data.preparation.runners import Run, Runner, local_runner
from bertjax.data.preparation.shard_assignment import Plan, plan_places
from bertjax.data.preparation.tokenize_corpus import DONE, TOKENIZER, tokenise
from bertjax.data.records import tfds_metadata as tfds_folder
from bertjax.data.records.manifest import WORK, Manifest, read_manifest, write_manifest
from bertjax.data.records.record_format import schema_of
from bertjax.data.tokenizers.tokenizer import (
    Tokenizer,
    load_tokenizer,
    open_vocabulary,
    train_tokenizer,
)
from bertjax.errors import check, disk_errors, require_package
from bertjax.progress import Progress, silent
from bertjax.storage import write_whole

NOT_IN_THE_OUTPUT = (
    "workers",
    "prepared_dir",
    "mixture",
    "mixture_weights",
    "mixture_exponent",
    "skip_damaged",
)


def prepare(
    config: Config,
    output_dir: epath.PathLike,
    *,
    progress: Progress = silent,
    runner: Runner | None = None,
) -> Manifest:
    """Make the shards of `config.data` and `config.tokenizer` in `output_dir`, or what is missing
    of them.

    `runner` says where the tasks run; by default in `config.data.workers` processes here. Raises
    `UserError` for a corpus that cannot be read, a folder that holds another preparation, or a
    disk that refuses.
    """
    folder = epath.Path(output_dir)
    sources = corpus.find_sources(config.data)
    intent = {
        "settings": _settings(config),
        "sources": {source.name: corpus.fingerprint(source) for source in sources},
    }
    finished = read_manifest(folder)
    if finished is not None:
        _same_plan(folder, {"settings": finished.settings, "sources": finished.sources}, intent)
        _same_vocabulary(config, folder, finished.tokenizer_fingerprint)
        if (folder / WORK).exists():
            (folder / WORK).rmtree()  # left by a kill after the last step
        return finished
    # For the folder's metadata, written last: better refused now than after hours.
    require_package("tensorflow_datasets", extra="data")
    _claim(folder, intent)
    pieces = cut(sources)
    plan = plan_places(config, sum(piece.size for piece in pieces))

    with runner or local_runner(config.data.workers or os.cpu_count() or 1) as run:
        tokenizer = _tokenizer(config, folder, pieces, plan, run, progress)
        _make_shards(config, folder, pieces, plan, run, progress)

    manifest = _manifest(config, folder, tokenizer, intent, pieces, plan)
    progress("describe", 0, 0)
    tfds_folder.write(folder, manifest)
    write_manifest(folder, manifest)
    (folder / WORK).rmtree()
    return manifest


def _make_shards(
    config: Config,
    folder: epath.Path,
    pieces: list[Piece],
    plan: Plan,
    run: Run,
    progress: Progress,
) -> None:
    place, names = os.fspath(folder), [piece.name for piece in pieces]
    run("tokenise", [(tokenise, config, place, plan, piece) for piece in pieces], progress)
    if threshold := config.data.near_duplicate_threshold:
        run("near duplicates", [(near_duplicates.find, place, names, threshold)], progress)
    run("write", [(build.build, config, place, names, shard) for shard in plan.shards()], progress)


def _settings(config: Config) -> dict[str, Any]:
    """The fields that the output depends on."""
    data = to_dict(config.data)
    data["corpus"] = sorted(data["corpus"])
    for name in NOT_IN_THE_OUTPUT:
        del data[name]
    return {"seed": config.seed, "tokenizer": to_dict(config.tokenizer), "data": data}


def _claim(folder: epath.Path, plan: dict[str, Any]) -> None:
    """Take the folder for this plan: what an earlier start with the same plan left there is kept."""
    path = folder / WORK / "plan.json"
    with disk_errors(path):
        if path.exists():
            _same_plan(folder, json.loads(path.read_text()), plan)
            return
        # A kill between the two steps below leaves an empty .work: it is ours.
        strange = folder.exists() and any(p.name != WORK for p in folder.iterdir())
        check(
            not strange,
            where=str(folder),
            found="files that no preparation made",
            expected="an empty or new folder",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(plan, indent=2).encode())


def _same_plan(
    folder: epath.Path, found: dict[str, Any], expected: dict[str, Any], where: str = ""
) -> None:
    for name in {**found, **expected}:
        a, b = found.get(name), expected.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            _same_plan(folder, a, b, f"{where}{name}.")
        elif where == "sources.":
            check(
                a == b,
                where=f"{folder}, made from {name}",
                found="a source added, removed or changed since",
                expected="the same sources, or another folder",
            )
        else:
            label = f"{folder}, made with {where.removeprefix('settings.')}{name} {a}"
            check(
                a == b,
                where=label,
                found=f"{b} now",
                expected="the same settings, or another folder",
            )


def _same_vocabulary(config: Config, folder: epath.Path, fingerprint: str) -> None:
    if file := config.tokenizer.vocab_file:
        same = open_vocabulary(config.tokenizer).fingerprint == fingerprint
        check(
            same,
            where=f"{folder}, made with {file}",
            found="other entries in it now",
            expected="the same entries, or another folder",
        )


def _tokenizer(
    config: Config,
    folder: epath.Path,
    pieces: list[Piece],
    plan: Plan,
    run: Run,
    progress: Progress,
) -> Tokenizer:
    """The folder's tokenizer: saved there already, opened, or trained on a sample of the corpus."""
    saved = folder / TOKENIZER
    if (saved / "tokenizer_config.json").exists():
        tokenizer = load_tokenizer(saved)
        _same_vocabulary(config, folder, tokenizer.fingerprint)
        return tokenizer
    if config.tokenizer.vocab_file:
        tokenizer = open_vocabulary(config.tokenizer)
    else:
        whole = sum(piece.size for piece in pieces)
        tasks = [(sample.take, config, os.fspath(folder), plan, piece, whole) for piece in pieces]
        run("sample", tasks, progress)
        progress("train tokenizer", 0, 0)
        sentences = sample.read(
            folder, [piece.name for piece in pieces], config.tokenizer.train_characters
        )
        tokenizer = train_tokenizer(config.tokenizer, sentences)
    tokenizer.save(saved)
    if (folder / WORK / sample.FOLDER).exists():
        (folder / WORK / sample.FOLDER).rmtree()
    return tokenizer


def _manifest(
    config: Config,
    folder: epath.Path,
    tokenizer: Tokenizer,
    intent: dict[str, Any],
    pieces: list[Piece],
    plan: Plan,
) -> Manifest:
    written = [build.read_written(os.fspath(folder), shard) for shard in plan.shards()]
    for split in ("train", "validation"):
        of_split = [w.info.records for w in written if w.info.split == split]
        where = f"split {split}, of {sum(w.documents for w in written)} documents"
        expected = f"one or more (data.validation_fraction is {config.data.validation_fraction})"
        check(
            sum(of_split) > 0 or not of_split, where=where, found="no instance", expected=expected
        )
    frequencies = np.sum([w.token_counts for w in written if w.token_counts] or [[1]], axis=0)
    p = frequencies[frequencies > 0] / frequencies.sum()
    return Manifest(
        schemas={split: schema_of(config.data, split) for split in ("train", "validation")},
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        settings=intent["settings"],
        sources=intent["sources"],
        shards=tuple(w.info for w in written),
        validation_unigram_entropy=float(-(p * np.log(p)).sum()),
        counts=_counts(folder, pieces, written),
    )


def _counts(folder: epath.Path, pieces: list[Piece], written: list[Written]) -> dict[str, int]:
    """What came in, what each step of cleaning dropped or changed, and what each split holds."""
    found: Counter[str] = Counter()
    for piece in pieces:
        found.update(json.loads((folder / WORK / piece.name / DONE).read_text()))
    counts = {name: found[name] for name in (*cleaning.COUNTED, "characters")}
    counts["duplicate_documents"] = sum(w.duplicates for w in written)
    counts["near_duplicate_documents"] = sum(w.near_duplicates for w in written)
    for split in ("train", "validation"):
        for name in ("documents", "sentences", "tokens"):
            counts[f"{split}_{name}"] = sum(
                getattr(w, name) for w in written if w.info.split == split
            )
    return counts
