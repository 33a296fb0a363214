"""The pretraining step, by bertjax and by its peers: forward, backward, clipping, AdamW; dropout
0.1, MLM and NSP.

    python benchmarks/step.py [--sizes mini small] [--lengths 128] [--batch-size 32] [--peer] [--json step.json]

With `--peer` the same step is also timed in PyTorch (`transformers`, SDPA; eager and
`torch.compile`) and in the last Flax BERT (`transformers` 4.57), each in an environment that is
made once in `--environments`. All get the same batch, whose rows are full, and take turns: the
table has the median of the rounds. float32 on a CPU, bfloat16 elsewhere (PyTorch by autocast).
Utilisation is the model's FLOPs, those of `bertjax.estimate.cost.model_flops` for all, over the
rate of large matrix products measured in the same run. Compilation is the first step's time less a
later one's. The peers compute the scores of all places, as their models do, bertjax those of the
masked ones. On Linux bertjax asks for huge pages, as its command does; the peers run as they are
started, and once more with huge pages.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.cli.huge_pages import TUNABLE, VARIABLE

HERE = Path(__file__).parent
SIZES = {
    "mini": (4, 256),
    "small": (4, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
COLUMNS = (
    *(
        "size",
        "length",
        "batch",
        "implementation",
        "step, ms",
        "sequences/s",
        "tokens/s",
        "of the rate",
    ),
    *("compile, s", "peak MiB", "bertjax is"),
)
PEERS = ["pytorch", "pytorch compiled", "flax", "pytorch, huge pages", "flax, huge pages"]
PREDICTIONS = {128: 20, 512: 76}
VOCABULARY = 30_522
ENVIRONMENTS = {
    "pytorch": ("torch==2.13.0", "transformers==5.23.0"),
    "flax": ("transformers==4.57.6", "flax==0.12.8", "jax==0.10.2", "optax==0.2.8"),
}


class Worker:
    """An implementation in a process of its own."""

    def __init__(
        self, python: str, script: str, job: dict[str, Any], *, huge_pages: bool = False
    ) -> None:
        command = [python, str(HERE / "steps" / script), json.dumps(job)]
        environment = os.environ | ({VARIABLE: f"{TUNABLE}=1"} if huge_pages else {})
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.begun = self.answer()
        self.seconds: list[float] = []

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.process.args}: ended with status {self.process.wait()}")

    def time(self, count: int) -> None:
        assert self.process.stdin
        print(count, file=self.process.stdin, flush=True)
        self.seconds.append(self.answer()["step_s"])

    def end(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.close()
        return {
            **self.begun,
            **self.answer(),
            "step_s": statistics.median(self.seconds),
            "steps_s": self.seconds,
        }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--sizes", nargs="+", default=["mini", "small"], choices=SIZES)
    options.add_argument("--lengths", nargs="+", type=int, default=[128])
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="by default float32 on a CPU"
    )
    options.add_argument("--options", default="{}", help="more of bertjax.ModelConfig, as JSON")
    options.add_argument("--peer", action="store_true")
    options.add_argument(
        "--loop", action="store_true", help="also the step in bertjax's loop, beside the bare one"
    )
    options.add_argument("--implementations", nargs="+", default=PEERS)
    options.add_argument("--environments", type=Path, default=Path("build/peers"))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--seconds", type=float, default=3.0, help="of steps, at least, in each turn"
    )
    options.add_argument("--json", type=Path, default=Path("runs/step.json"))
    asked = options.parse_args()
    dtype = asked.dtype or ("float32" if is_cpu() else "bfloat16")
    pythons = {"bertjax": sys.executable}
    if asked.peer:
        wanted = {peer_of(name) for name in asked.implementations}
        pythons |= {name: environment(name, asked.environments) for name in wanted}
    rate = product_rate(dtype, asked.rounds)
    print(
        f"{platform.machine()}, {platform.python_version()}, {dtype}; matrix products {rate / 1e9:,.1f} GFLOP/s\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|", flush=True)
    rows = []
    for size in asked.sizes:
        for length in asked.lengths:
            rows += compared(asked, size, length, dtype, pythons, rate)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(
        json.dumps({"product_flops_per_s": rate, "dtype": dtype, "rows": rows}, indent=1) + "\n"
    )


def is_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"


def environment(name: str, folder: Path) -> str:
    """The Python of a peer's environment, made where it is not there."""
    python = folder.resolve() / name / "bin" / "python"
    if not (folder / name / "whole").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / name)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]], check=True
        )
        (folder / name / "whole").write_text("")
    return str(python)


def peer_of(implementation: str) -> str:
    """`pytorch` of `pytorch compiled` and of `pytorch, huge pages`."""
    return implementation.replace(",", "").split()[0]


def product_rate(dtype: str, rounds: int) -> float:
    """FLOP/s of large matrix products, the best round's."""
    worker = Worker(sys.executable, "bertjax_step.py", {"kind": "products", "dtype": dtype})
    for _ in range(rounds):
        worker.time(10)
    found = worker.end()
    return found["flops"] / min(found["steps_s"])


def compared(
    asked: argparse.Namespace,
    size: str,
    length: int,
    dtype: str,
    pythons: dict[str, str],
    rate: float,
) -> list[dict[str, Any]]:
    """Time all implementations of one size in turns, and print a row for each."""
    layers, width = SIZES[size]
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }
    predictions = PREDICTIONS.get(length, -(-length * 3 // 20))
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "batch.npz"
        np.savez(batch, **full_batch(asked.batch_size, length, predictions))
        job = {"kind": "training", "model": shape, "length": length, "predictions": predictions}
        job |= {
            "batch_size": asked.batch_size,
            "dtype": dtype,
            "batch": str(batch),
            "options": json.loads(asked.options),
        }
        workers = {"bertjax": Worker(pythons["bertjax"], "bertjax_step.py", job)}
        for name in asked.implementations if asked.peer else []:
            peer = peer_of(name)
            workers[name] = Worker(
                pythons[peer],
                f"{peer}_step.py",
                job | {"compiled": "compiled" in name},
                huge_pages=name.endswith("huge pages"),
            )
        if asked.loop:
            workers["bertjax, its loop"] = Worker(
                pythons["bertjax"], "bertjax_step.py", job | {"kind": "loop"}
            )
        for worker in workers.values():
            worker.time(1)
        counts = {
            name: max(1, round(asked.seconds / worker.seconds.pop()))
            for name, worker in workers.items()
        }
        if asked.loop:
            counts |= dict.fromkeys(
                ("bertjax", "bertjax, its loop"), 10 * math.ceil(counts["bertjax"] / 10)
            )
        for _ in range(asked.rounds):
            for name, worker in workers.items():
                worker.time(counts[name])
        found = {name: worker.end() for name, worker in workers.items()}
    rows = []
    flops, ours = found["bertjax"]["flops"], found["bertjax"]["step_s"]
    for name, one in found.items():
        seconds = one["step_s"]
        per_second = asked.batch_size / seconds
        rows.append(
            {
                "size": size,
                "length": length,
                "batch_size": asked.batch_size,
                "implementation": name,
                **one,
            }
        )
        print(
            f"| {size} | {length} | {asked.batch_size} | {name} | {1000 * seconds:,.1f} | {per_second:,.1f} | "
            f"{length * per_second:,.0f} | {flops / seconds / rate:.0%} | {one['first_s'] - seconds:.1f} | "
            f"{one['peak_bytes'] / 2**20:,.0f} | {seconds / ours:.2f} x as fast |",
            flush=True,
        )
    return rows


def full_batch(rows: int, length: int, predictions: int) -> dict[str, np.ndarray]:
    """Random ids, two sentences a row, `predictions` masked places; `labels` are the masked ids in
    their places.
    """
    rng = np.random.default_rng(0)
    positions = np.sort(
        rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :predictions], axis=1
    )
    masked = rng.integers(1000, VOCABULARY, (rows, predictions))
    labels = np.full((rows, length), -100)
    np.put_along_axis(labels, positions, masked, axis=1)
    return {
        "input_ids": rng.integers(1000, VOCABULARY, (rows, length)),
        "input_mask": np.ones((rows, length), np.int64),
        "segment_ids": np.tile(np.arange(length) >= length // 2, (rows, 1)).astype(np.int64),
        "masked_lm_positions": positions,
        "masked_lm_ids": masked,
        "masked_lm_weights": np.ones((rows, predictions), np.float32),
        "next_sentence_labels": rng.integers(0, 2, rows),
        "labels": labels,
    }


if __name__ == "__main__":
    main()
