"""From a corpus to a prepared folder: tokenise each source, gather by content, write shards.

Which shard a document goes to follows from its content, so the output does not depend on the
order of the files or the number of workers. What is done is kept: started again after a kill,
only what is missing is made.
"""

import hashlib
import heapq
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, to_dict
from bertjax.data import corpus, work
from bertjax.data.corpus import Source
from bertjax.data.documents import digest
from bertjax.data.manifest import Manifest, read_manifest, write_manifest
from bertjax.data.processes import runner
from bertjax.data.shards import Schema
from bertjax.data.tokenizer import Tokenizer, load_tokenizer, open_vocabulary, train_tokenizer
from bertjax.errors import check, disk_errors
from bertjax.progress import Progress, silent


def prepare(config: Config, output_dir: epath.PathLike, *, progress: Progress = silent) -> Manifest:
    """Make the shards of `config.data` and `config.tokenizer` in `output_dir`, or what is missing of them.

    Raises `UserError` for a corpus that cannot be read, a folder that holds another
    preparation, or a disk that refuses.
    """
    folder = Path(output_dir)
    sources = corpus.find_sources(config.data)
    plan = {
        "settings": _settings(config),
        "sources": {source.name: corpus.fingerprint(source) for source in sources},
    }
    finished = read_manifest(epath.Path(folder))
    if finished is not None:
        _same_plan(folder, {"settings": finished.settings, "sources": finished.sources}, plan)
        _same_vocabulary(config, folder, finished.tokenizer_fingerprint)
        shutil.rmtree(folder / work.WORK, ignore_errors=True)  # left by a kill after the last step
        return finished
    _claim(folder, plan)
    tokenizer = _tokenizer(config, folder, sources, progress)

    every = work.buckets(config)
    workers = config.data.workers or os.cpu_count() or 1
    with runner(workers) as run:
        names = [hashlib.sha256(source.name.encode()).hexdigest()[:16] for source in sources]
        tokenising = [(work.tokenise, config, str(folder), s, n) for s, n in zip(sources, names, strict=True)]
        run("tokenise", tokenising, progress)
        written = run("write", [(work.write_bucket, config, str(folder), bucket) for bucket in every], progress)

    manifest = _manifest(config, tokenizer, plan, written)
    write_manifest(epath.Path(folder), manifest)
    shutil.rmtree(folder / work.WORK)
    return manifest


def _settings(config: Config) -> dict[str, Any]:
    """The fields that the output depends on."""
    data = to_dict(config.data)
    data["corpus"] = sorted(data["corpus"])
    for name in ("workers", "prepared_dir"):
        del data[name]
    return {"seed": config.seed, "tokenizer": to_dict(config.tokenizer), "data": data}


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Take the folder for this plan: what an earlier start with the same plan left there is kept."""
    path = folder / work.WORK / "plan.json"
    with disk_errors(path):
        if path.exists():
            _same_plan(folder, json.loads(path.read_text()), plan)
            return
        # A kill between the two steps below leaves an empty .work: it is ours.
        strange = folder.exists() and any(p.name != work.WORK for p in folder.iterdir())
        check(not strange, str(folder), "files that no preparation made", "an empty or new folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_text(json.dumps(plan, indent=2))
        unfinished.replace(path)


def _same_plan(folder: Path, found: dict[str, Any], expected: dict[str, Any], where: str = "") -> None:
    for name in {**found, **expected}:
        a, b = found.get(name), expected.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            _same_plan(folder, a, b, f"{where}{name}.")
        elif where == "sources.":
            check(
                a == b,
                f"{folder}, made from {name}",
                "a source added, removed or changed since",
                "the same sources, or another folder",
            )
        else:
            label = f"{folder}, made with {where.removeprefix('settings.')}{name} {a}"
            check(a == b, label, f"{b} now", "the same settings, or another folder")


def _same_vocabulary(config: Config, folder: Path, fingerprint: str) -> None:
    if file := config.tokenizer.vocab_file:
        same = open_vocabulary(config.tokenizer).fingerprint == fingerprint
        check(same, f"{folder}, made with {file}", "other entries in it now", "the same vocabulary, or another folder")


def _tokenizer(config: Config, folder: Path, sources: Sequence[Source], progress: Progress) -> Tokenizer:
    """The tokenizer that an earlier start saved, or the one configured, opened or trained now."""
    saved = folder / work.TOKENIZER
    if (saved / "tokenizer_config.json").exists():
        tokenizer = load_tokenizer(saved)
        _same_vocabulary(config, folder, tokenizer.fingerprint)
        return tokenizer
    if config.tokenizer.vocab_file:
        tokenizer = open_vocabulary(config.tokenizer)
    else:
        progress("train tokenizer", 0, 0)
        tokenizer = train_tokenizer(config.tokenizer, _sample(config, sources))
    tokenizer.save(saved)
    return tokenizer


def _sample(config: Config, sources: Sequence[Source]) -> list[str]:
    """Sentences of the documents with the smallest digests, up to `train_characters`, in their order.

    A sample that does not depend on the order in which documents come; memory is bounded by it.
    """
    kept: list[tuple[int, bytes, list[str]]] = []  # the largest digest on top
    seen: set[bytes] = set()
    total = 0
    for source in sources:
        for document in corpus.read_documents(source, config.data):
            key = digest(document)
            if key in seen:
                continue
            seen.add(key)
            heapq.heappush(kept, (-int.from_bytes(key, "big"), key, document))
            total += sum(map(len, document))
            while len(kept) > 1 and total - sum(map(len, kept[0][2])) >= config.tokenizer.train_characters:
                _, key, dropped = heapq.heappop(kept)
                seen.discard(key)
                total -= sum(map(len, dropped))
    return [sentence for _, _, document in sorted(kept, reverse=True) for sentence in document]


def _manifest(config: Config, tokenizer: Tokenizer, plan: dict[str, Any], written: list[work.Written]) -> Manifest:
    counts: dict[str, int] = {"duplicate_documents": sum(w.duplicates for w in written)}
    for split in ("train", "validation"):
        of_split = [w for w in written if w.info.split == split]
        for name in ("documents", "sentences", "tokens"):
            counts[f"{split}_{name}"] = sum(getattr(w, name) for w in of_split)
        instances = sum(w.info.records for w in of_split)
        where = f"split {split}, of {sum(w.documents for w in written)} documents"
        expected = f"one or more (data.validation_fraction is {config.data.validation_fraction})"
        check(instances > 0 or not of_split, where, "no instance", expected)
    frequencies = np.sum([w.token_counts for w in written if w.token_counts] or [[1]], axis=0)
    p = frequencies[frequencies > 0] / frequencies.sum()
    return Manifest(
        schema=Schema(config.data.max_seq_length, config.data.max_predictions_per_seq),
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        settings=plan["settings"],
        sources=plan["sources"],
        shards=tuple(w.info for w in written),
        validation_unigram_entropy=float(-(p * np.log(p)).sum()),
        counts=counts,
    )
