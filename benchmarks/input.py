"""How fast training batches come from prepared shards, at the start and at step 1,000,000.

    python benchmarks/input.py [--rows 400000] [--batch-size 1024] [--batches 300]

Rows of length 128 with random ids, 20 predictions. Each start is a process of its own; the last
column is the time to its first batch, imports left out. The limit is the same records copied from
memory and decoded on one thread, without an order, checksums or tf.data.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from bertjax.config import Config, DataConfig, ModelConfig, TrainConfig, to_dict
from bertjax.data.records import record_format
from bertjax.data.records.manifest import Manifest, read_manifest, write_manifest
from bertjax.data.records.record_format import Schema
from bertjax.types import Batch

LENGTH, PREDICTIONS, VOCABULARY, SHARDS = 128, 20, 30_000, 8
SCHEMA = Schema(LENGTH, PREDICTIONS)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--batch-size", type=int, default=1024)
    options.add_argument("--batches", type=int, default=300)
    options.add_argument("--run", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.run:
        print(json.dumps(run_one(asked, json.loads(asked.run))))
        return
    with tempfile.TemporaryDirectory() as name:
        write_folder(epath.Path(name), asked.rows)
        limit = plain_decoding(epath.Path(name), asked)
        print("| rows | start at step | rows/s | of the limit | peak MiB | s to the first batch |")
        print("| --- | --- | --- | --- | --- | --- |")
        for dynamic, start in ((False, 0), (False, 1_000_000), (True, 0), (False, 0)):
            job = json.dumps({"folder": name, "start": start, "dynamic": dynamic})
            command = [sys.executable, __file__, *sys.argv[1:], "--run", job]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            kind = "to be masked in the step" if dynamic else "masked"
            print(
                f"| {kind} | {start:,} | {found['rate']:,.0f} | {found['rate'] / limit:.2f} | "
                f"{found['peak']:,.0f} | {found['first']:.2f} |",
                flush=True,
            )
        print(f"\nThe limit: {limit:,.0f} rows/s")


def write_folder(folder: epath.Path, rows: int) -> None:
    infos = []
    for number in range(SHARDS):
        path = folder / f"train-{number:05d}-of-{SHARDS:05d}.tfrecord"
        blocks = (
            random_rows(np.random.default_rng((number, i)), 4096)
            for i in range(rows // SHARDS // 4096 + 1)
        )
        infos.append(record_format.write_shard(path, "train", SCHEMA, blocks))
    write_manifest(
        folder,
        Manifest(
            schemas={"train": SCHEMA, "validation": SCHEMA},
            tokenizer_fingerprint="",
            vocab_size=VOCABULARY,
            settings={"data": to_dict(DataConfig())},
            sources={},
            shards=tuple(infos),
            validation_unigram_entropy=0.0,
            counts={},
        ),
    )


def random_rows(rng: np.random.Generator, rows: int) -> Batch:
    return {
        "input_ids": rng.integers(5, VOCABULARY, (rows, LENGTH), np.int32),
        "input_mask": np.ones((rows, LENGTH), np.int32),
        "segment_ids": rng.integers(0, 2, (rows, LENGTH), np.int32),
        "masked_lm_positions": np.sort(
            rng.integers(0, LENGTH, (rows, PREDICTIONS), np.int32), axis=1
        ),
        "masked_lm_ids": rng.integers(5, VOCABULARY, (rows, PREDICTIONS), np.int32),
        "masked_lm_weights": np.ones((rows, PREDICTIONS), np.float32),
        "next_sentence_labels": rng.integers(0, 2, (rows, 1), np.int32),
    }


def plain_decoding(folder: epath.Path, asked: argparse.Namespace) -> float:
    manifest = read_manifest(folder)
    assert manifest is not None
    info = manifest.shards[0]
    raw = np.array(record_format.map_records(folder / info.name, SCHEMA, info))
    begin, done = time.perf_counter(), 0
    while done < asked.batches * asked.batch_size:
        at = done % (len(raw) - asked.batch_size)
        record_format.decode(SCHEMA, raw[at : at + asked.batch_size])
        done += asked.batch_size
    return done / (time.perf_counter() - begin)


def run_one(asked: argparse.Namespace, job: dict[str, Any]) -> dict[str, float]:
    import tensorflow  # noqa: F401, its import is not what is measured

    from bertjax.data import pipeline

    config = Config(
        data=DataConfig(
            max_seq_length=LENGTH,
            max_predictions_per_seq=PREDICTIONS,
            prepared_dir=job["folder"],
            dynamic_masking=job["dynamic"],
        ),
        model=ModelConfig(vocab_size=VOCABULARY),
        train=TrainConfig(batch_size=asked.batch_size),
    )
    begin = time.perf_counter()
    records = pipeline.open_split(config, job["folder"], "train", "")
    batches = pipeline.train_batches([records], config, np.ones(VOCABULARY, bool), job["start"])
    next(batches)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(asked.batches):
        next(batches)
    rate = asked.batches * asked.batch_size / (time.perf_counter() - begin)
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024  # type: ignore[union-attr]
    return {"rate": rate, "peak": peak, "first": first}


if __name__ == "__main__":
    main()
