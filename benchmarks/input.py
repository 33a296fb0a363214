"""Speed of reading training batches from prepared shards, at the start and at step 1,000,000.

    python benchmarks/input.py [--rows 400000] [--batch-size 1024] [--batches 300]

Rows have 128 random tokens and 20 predictions. Each start is a process of its own; the last column
is the time to its first batch, without imports. The limit is the same records copied from memory
and decoded by one thread, without a random order, checksums or tf.data.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from reporting import argument_parser, print_header, print_line

from bertjax.config import Config, DataConfig, ModelConfig, TrainConfig, to_dict
from bertjax.data.records import record_format, shard_files
from bertjax.data.records.manifest import Manifest, read_manifest, write_manifest
from bertjax.data.records.record_format import Schema
from bertjax.types import Batch

LENGTH, PREDICTIONS, VOCAB_SIZE, SHARDS = 128, 20, 30_000, 8
SCHEMA = Schema(LENGTH, PREDICTIONS)
BLOCK_ROWS = 4096
COLUMNS = (
    "rows",
    "start at step",
    "rows/s",
    "of the limit",
    "peak MiB",
    "s to the first batch",
)
# (dynamic masking, first step). The first again at the end, to show what else the machine did.
STARTS = ((False, 0), (False, 1_000_000), (True, 0), (False, 0))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(measure(arguments, json.loads(arguments.run))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_folder(epath.Path(folder), arguments.rows)
        limit = decoding_rate(epath.Path(folder), arguments)
        print_header(COLUMNS)
        for dynamic, start in STARTS:
            job = {"folder": folder, "start": start, "dynamic": dynamic}
            figures = measured_in_process(job)
            print_line(
                (
                    "to be masked in the step" if dynamic else "masked",
                    f"{start:,}",
                    f"{figures['rate']:,.0f}",
                    f"{figures['rate'] / limit:.2f}",
                    f"{figures['peak']:,.0f}",
                    f"{figures['first']:.2f}",
                )
            )
        print(f"\nThe limit: {limit:,.0f} rows/s")


def write_folder(folder: epath.Path, rows: int) -> None:
    """Write a prepared folder of random rows."""
    shards = []
    for number in range(SHARDS):
        path = folder / f"train-{number:05d}-of-{SHARDS:05d}.tfrecord"
        blocks = random_blocks(number, rows // SHARDS // BLOCK_ROWS + 1)
        shards.append(record_format.write_shard(path, "train", SCHEMA, blocks))
    manifest = Manifest(
        schemas={"train": SCHEMA, "validation": SCHEMA},
        tokenizer_fingerprint="",
        vocab_size=VOCAB_SIZE,
        settings={"data": to_dict(DataConfig())},
        sources={},
        shards=tuple(shards),
        validation_unigram_entropy=0.0,
        counts={},
    )
    write_manifest(folder, manifest)


def random_blocks(shard: int, blocks: int) -> Iterator[Batch]:
    for block in range(blocks):
        yield random_rows(np.random.default_rng((shard, block)), BLOCK_ROWS)


def random_rows(rng: np.random.Generator, rows: int) -> Batch:
    positions = rng.integers(0, LENGTH, (rows, PREDICTIONS), np.int32)
    return {
        "input_ids": rng.integers(5, VOCAB_SIZE, (rows, LENGTH), np.int32),
        "input_mask": np.ones((rows, LENGTH), np.int32),
        "segment_ids": rng.integers(0, 2, (rows, LENGTH), np.int32),
        "masked_lm_positions": np.sort(positions, axis=1),
        "masked_lm_ids": rng.integers(5, VOCAB_SIZE, (rows, PREDICTIONS), np.int32),
        "masked_lm_weights": np.ones((rows, PREDICTIONS), np.float32),
        "next_sentence_labels": rng.integers(0, 2, (rows, 1), np.int32),
    }


def decoding_rate(folder: epath.Path, arguments: argparse.Namespace) -> float:
    """Return the rows a second of decoding records from memory in their order."""
    manifest = read_manifest(folder)
    assert manifest is not None
    shard = manifest.shards[0]
    records = np.array(shard_files.map_records(folder / shard.name, SCHEMA, shard))
    begin, done = time.perf_counter(), 0
    while done < arguments.batches * arguments.batch_size:
        first = done % (len(records) - arguments.batch_size)
        record_format.decode(SCHEMA, records[first : first + arguments.batch_size])
        done += arguments.batch_size
    return done / (time.perf_counter() - begin)


def measured_in_process(job: dict[str, Any]) -> dict[str, float]:
    """Return the figures of `measure` in a process of its own, whose peak memory is its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--run", json.dumps(job)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, job: dict[str, Any]) -> dict[str, float]:
    import tensorflow  # noqa: F401, its import is not what is measured

    from bertjax.data import pipeline

    config = Config(
        data=DataConfig(
            max_seq_length=LENGTH,
            max_predictions_per_seq=PREDICTIONS,
            prepared_dir=job["folder"],
            dynamic_masking=job["dynamic"],
        ),
        model=ModelConfig(vocab_size=VOCAB_SIZE),
        train=TrainConfig(batch_size=arguments.batch_size),
    )
    begin = time.perf_counter()
    records = pipeline.open_split(config, job["folder"], "train", "")
    batches = pipeline.train_batches([records], config, np.ones(VOCAB_SIZE, bool), job["start"])
    next(batches)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(arguments.batches):
        next(batches)
    rate = arguments.batches * arguments.batch_size / (time.perf_counter() - begin)
    return {"rate": rate, "peak": peak_mebibytes(), "first": first}


def peak_mebibytes() -> float:
    """Return the peak memory of this process, as Linux has it."""
    match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match.group(1)) / 1024


if __name__ == "__main__":
    main()
