"""Cost of checkpoints: time that a save stops training, times of a save, a restore and a restart.

    python benchmarks/checkpoint.py [--sizes mini small base] [--folder FOLDER] [--json FILE]

A state is the parameters and both moments of AdamW, in float32. Saves go to FOLDER, and restores
come from it; what was just written is read from memory if the system kept it there. A start is a
process of its own, from its launch until its first step (batch size 8, length 128) is under way:
first the start of a new run, without compiled programs, then its restart from a checkpoint. Figures
are medians of `--rounds`.

What digests cost is measured against Orbax alone, in turns: a save's background part, and a
restore, by the clock and in processor time. Orbax alone reads the list of tensors too, as bertjax
did before it had digests. `--digests` measures this only.
"""

import argparse
import collections
import itertools
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
import orbax.checkpoint as ocp
from etils import epath
from reporting import argument_parser, print_header, print_line, write_json
from steps.jobs import SIZES, full_batch

from bertjax.cli import huge_pages
from bertjax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from bertjax.parallel import compile_cache
from bertjax.parallel.mesh import make_mesh
from bertjax.training.batch_source import BatchSource
from bertjax.training.checkpoint import Checkpoints
from bertjax.training.loop import train
from bertjax.training.step import abstract_state, init_state

BATCH_SIZE, LENGTH, PREDICTIONS = 8, 128, 20
COLUMNS = (
    "size",
    "state, MiB",
    "save holds up, ms",
    "save, s",
    "restore, s",
    "first start, s",
    "restart, s",
    "ratio",
    "digests, of a save (processor)",
    "of a restore (processor)",
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["mini", "small", "base"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path, default=Path("runs/checkpoint.json"))
    parser.add_argument("--digests", action="store_true", help="no starts")
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(*arguments.start, arguments.sizes[0])
        return
    print(f"{platform.machine()}, {platform.python_version()}, jax {jax.__version__}\n")
    print_header(COLUMNS)
    entries = []
    for size in arguments.sizes:
        entry = measured(size, arguments.folder, arguments.rounds, starts=not arguments.digests)
        entries.append(entry)
        print_entry(entry)
    write_json(arguments.json, entries)


def measured(size: str, folder: Path, rounds: int, *, starts: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        entry = {"size": size, **saves(config_of(size), epath.Path(checkpoints), rounds)}
    times = [started(size, folder) for _ in range(rounds if starts else 0)]
    if starts:
        entry["first_s"] = statistics.median(first for first, _ in times)
        entry["restart_s"] = statistics.median(restart for _, restart in times)
    return entry


def print_entry(entry: dict[str, Any]) -> None:
    starts = ["-"] * 3
    if "first_s" in entry:
        ratio = entry["restart_s"] / entry["first_s"]
        starts = [f"{entry['first_s']:.1f}", f"{entry['restart_s']:.1f}", f"{ratio:.2f}"]
    print_line(
        (
            entry["size"],
            f"{entry['bytes'] / 2**20:,.0f}",
            f"{1000 * entry['blocks_s']:.0f} ({1000 * entry['orbax_blocks_s']:.0f})",
            f"{entry['save_s']:.2f} ({entry['orbax_save_s']:.2f})",
            f"{entry['restore_s']:.2f} ({entry['orbax_restore_s']:.2f})",
            *starts,
            *(percent(entry, part) for part in ("save", "restore")),
        )
    )


def percent(entry: dict[str, Any], part: str) -> str:
    clock, processor = entry[f"{part}_ratio"], entry[f"{part}_processor_ratio"]
    return f"{100 * (clock - 1):+.0f} % ({100 * (processor - 1):+.0f} %)"


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
        data=DataConfig(max_seq_length=LENGTH, max_predictions_per_seq=PREDICTIONS),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
        # Only the last step saves.
        train=TrainConfig(steps=steps, batch_size=BATCH_SIZE, save_every_steps=1_000_000),
        mesh=MeshConfig(data=1),
    )


def saves(config: Config, folder: epath.Path, rounds: int) -> dict[str, Any]:
    """Return the size of a state, median seconds of its saves and restores, and of Orbax alone.

    The ratios are those of the medians; in each round both are measured.
    """
    state = jax.block_until_ready(jax.jit(lambda: init_state(config))())
    target = abstract_state(config, make_mesh(config.mesh, jax.devices()[:1]))
    ways: dict[str, Any] = {
        "": Checkpoints(folder / "run", keep=1),
        "orbax_": Orbax(folder / "orbax"),
    }
    times: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for step in range(1, rounds + 2):
        # Each way is the first in every other round.
        for name in sorted(ways, reverse=step % 2 == 1):
            checkpoints = ways[name]
            begin = now()
            checkpoints.save(step, state, {}, None)
            blocked = now()
            checkpoints.wait()
            saved = now()
            jax.block_until_ready(checkpoints.restore(step, target))
            restored = now()
            if step > 1:  # the first round also loads what it needs
                times[f"{name}blocks"].append(blocked - begin)
                times[f"{name}save"].append(saved - begin)
                times[f"{name}background"].append(saved - blocked)
                times[f"{name}restore"].append(restored - saved)
    for checkpoints in ways.values():
        checkpoints.close()
    entry = {f"{name}_s": float(np.median(values, axis=0)[0]) for name, values in times.items()}
    for part, name in ("save", "background"), ("restore", "restore"):
        alone = np.median(times[f"orbax_{name}"], axis=0)
        ratios = np.median(times[name], axis=0) / alone
        entry[f"{part}_ratio"], entry[f"{part}_processor_ratio"] = ratios.tolist()
    return {"bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)), **entry}


def now() -> np.ndarray:
    """Return the seconds of the clock, and the processor seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Orbax:
    """Checkpoints without digests."""

    def __init__(self, folder: epath.Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1,
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self.folder, self.manager = folder, ocp.CheckpointManager(folder, options=options)

    def save(self, step: int, state: Any, meta: dict[str, Any], heldout: None) -> None:
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self.manager.save(step, args=args, force=True)

    def wait(self) -> None:
        self.manager.wait_until_finished()

    def restore(self, step: int, target: Any) -> Any:
        # Not by the manager, which has a part of what it saved in its memory: a restart has not.
        with ocp.StandardCheckpointer() as checkpointer:
            folder = self.folder / str(step) / "state"
            checkpointer.metadata(folder)
            return checkpointer.restore(folder, target)

    def close(self) -> None:
        self.manager.close()


def started(size: str, folder: Path) -> tuple[float, float]:
    """Return the seconds until a run's first step is under way, at its start and at its restart."""
    with tempfile.TemporaryDirectory(dir=folder) as run_folder:
        return launched(size, run_folder, steps=2), launched(size, run_folder, steps=4)


def launched(size: str, run_folder: str, steps: int) -> float:
    command = [sys.executable, __file__, "--sizes", size, "--start", run_folder, str(steps)]
    # Time of day, since the other clocks of two processes do not compare.
    begin = time.time()
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return float(run.stdout.split()[-1]) - begin


def start(folder: str, steps: str, size: str) -> None:
    """Train to `steps`, and print the time of day when the first step was under way."""
    times: list[float] = []
    batch = {}
    for name, values in full_batch(BATCH_SIZE, LENGTH, PREDICTIONS).items():
        if name != "labels":
            batch[name] = values if values.dtype == np.float32 else values.astype(np.int32)
    batch["next_sentence_labels"] = batch["next_sentence_labels"][:, None]

    def batches(start_step: int, rows: np.ndarray) -> Any:
        return itertools.repeat({name: values[rows] for name, values in batch.items()})

    def note_time(stage: str, done: int, total: int) -> None:
        times.append(time.time())

    compile_cache.start(environment={"XDG_CACHE_HOME": folder})
    config = config_of(size, int(steps))
    train(config, Path(folder) / "run", BatchSource(train=batches), progress=note_time)
    print(times[0])


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    main()
