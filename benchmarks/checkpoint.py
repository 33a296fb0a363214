"""What checkpoints cost: how long a save holds up the step, how long it and a restore take, and a
restart.

    python benchmarks/checkpoint.py [--sizes mini small base] [--folder FOLDER] [--json checkpoint.json]

A state is parameters and both moments of AdamW, float32. Saves and restores are to and from FOLDER,
and what was just written is read from memory where the system kept it. A start is a process of its
own, from launch until its first step (batch 8, length 128) is under way: the first one of a run
with no compiled programs at hand, then a restart from its checkpoint. Medians of `--rounds`.
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from step import SIZES, full_batch

from bertjax.cli import huge_pages
from bertjax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from bertjax.parallel import compile_cache
from bertjax.parallel.mesh import make_mesh
from bertjax.training.batch_source import BatchSource
from bertjax.training.checkpoint import Checkpoints
from bertjax.training.loop import train
from bertjax.training.step import abstract_state, init_state

COLUMNS = (
    "size",
    "state, MiB",
    "save holds up, ms",
    "save, s",
    "restore, s",
    "first start, s",
    "restart, s",
    "ratio",
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--sizes", nargs="+", default=["mini", "small", "base"], choices=SIZES)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options.add_argument("--json", type=Path, default=Path("runs/checkpoint.json"))
    options.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.start:
        start(*asked.start, asked.sizes[0])
        return
    print(f"{platform.machine()}, {platform.python_version()}, jax {jax.__version__}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    rows = []
    for size in asked.sizes:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            row = {"size": size, **saves(config_of(size), epath.Path(folder), asked.rounds)}
        starts = [started(size, asked.folder) for _ in range(asked.rounds)]
        row |= {
            name: statistics.median(one[i] for one in starts)
            for i, name in enumerate(("first_s", "restart_s"))
        }
        rows.append(row)
        print(
            f"| {size} | {row['bytes'] / 2**20:,.0f} | {1000 * row['blocks_s']:.0f} | {row['save_s']:.2f} | "
            f"{row['restore_s']:.2f} | {row['first_s']:.1f} | {row['restart_s']:.1f} | "
            f"{row['restart_s'] / row['first_s']:.2f} |",
            flush=True,
        )
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(rows, indent=1) + "\n")


def config_of(size: str, steps: int = 2) -> Config:
    layers, width = SIZES[size]
    return Config(
        model=ModelConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            dropout_bits="hash",
            scan_unroll=layers,
        ),
        data=DataConfig(max_seq_length=128, max_predictions_per_seq=20),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        train=TrainConfig(steps=steps, batch_size=8, save_every_steps=1_000_000),
        mesh=MeshConfig(data=1),
    )


def saves(config: Config, folder: epath.Path, rounds: int) -> dict[str, Any]:
    """Save and restore a state `rounds` times."""
    state = jax.block_until_ready(jax.jit(lambda: init_state(config))())
    target = abstract_state(config, make_mesh(config.mesh, jax.devices()[:1]))
    checkpoints = Checkpoints(folder, keep=1)
    found: dict[str, list[float]] = {"blocks_s": [], "save_s": [], "restore_s": []}
    for step in range(1, rounds + 2):
        begin = time.perf_counter()
        checkpoints.save(step, state, {}, None)
        blocked = time.perf_counter()
        checkpoints.wait()
        saved = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(step, target))
        if step > 1:  # the first one also loads what it needs
            for name, seconds in zip(
                found, (blocked - begin, saved - begin, time.perf_counter() - saved), strict=True
            ):
                found[name].append(seconds)
    checkpoints.close()
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    return {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)), **medians}


def started(size: str, folder: Path) -> tuple[float, float]:
    """Seconds until a run's first step is under way, at its first start and at its restart."""
    with tempfile.TemporaryDirectory(dir=folder) as name:

        def launch(steps: int) -> float:
            command = [sys.executable, __file__, "--sizes", size, "--start", name, str(steps)]
            begin = time.time()
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            return float(done.stdout.split()[-1]) - begin

        return launch(2), launch(4)


def start(folder: str, steps: str, size: str) -> None:
    """Train to `steps`, and print the time of day when the first step was under way."""
    ends: list[float] = []
    config = config_of(size, int(steps))
    given = {
        name: x.astype(x.dtype if x.dtype == np.float32 else np.int32)
        for name, x in full_batch(8, 128, 20).items()
    }
    given["next_sentence_labels"] = given["next_sentence_labels"][:, None]
    del given["labels"]
    source = BatchSource(
        train=lambda start, rows: itertools.repeat({name: x[rows] for name, x in given.items()})
    )
    compile_cache.start(environment={"XDG_CACHE_HOME": folder})
    train(config, Path(folder) / "run", source, progress=lambda *_: ends.append(time.time()))
    print(ends[0])


if __name__ == "__main__":
    huge_pages.restart_with_them()
    main()
