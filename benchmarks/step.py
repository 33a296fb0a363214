"""Time of the pretraining step of bertjax and of other implementations.

    python benchmarks/step.py [--sizes mini small] [--lengths 128] [--batch-size 32] [--peer] \\
        [--families [modernbert deberta-v2 neobert]] [--json step.json]

A step is forward, backward, clipping and AdamW, with dropout 0.1, masked words and next sentence.
With `--families` the models are these instead of BERT, with masked words only: ModernBERT, DeBERTa
(v3) and NeoBERT at the same widths and BERT's vocabulary. The peer of NeoBERT is the model that the
tests compare with, `tests/families/neobert_torch.py`. DeBERTa has dropout 0.1, the others none.
With `--peer` the same step is also timed in PyTorch (`transformers`, SDPA; eager and
`torch.compile`) and in the last Flax BERT (`transformers` 4.57), each in an environment that is
made once in `--environments`. All get the same batch, whose rows have no padding, and take turns;
the table has the median of the rounds, and in its last columns that of each round's ratio, by the
clock and by the time of all cores together. Where others use the machine, the second says more, if
on one core (`taskset -c 1`): on several, PyTorch's threads also count while they wait. float32 on a
CPU, bfloat16 elsewhere (PyTorch by autocast). Utilization is the model's FLOPs, those of
`bertjax.estimate.cost.model_flops` for all, over the rate of large matrix products measured in the
same run. Compile time is the first step's time less a later one's. The peers compute the logits of
all positions, as their models do, bertjax those of the masked ones. On Linux bertjax asks for huge
pages, as its command does; the peers run as they are started, and once more with huge pages.
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

from reporting import argument_parser, print_header, print_line, write_json
from steps.jobs import FAMILIES, SIZES, job_of

from bertjax.cli.huge_pages import TUNABLE, VARIABLE

HERE = Path(__file__).parent
COLUMNS = (
    "model",
    "length",
    "batch",
    "implementation",
    "step, ms",
    "CPU, ms",
    "sequences/s",
    "tokens/s",
    "of the rate",
    "compile, s",
    "peak MiB",
    "bertjax is",
    "by CPU time",
)
PEERS = ["pytorch", "pytorch compiled", "flax", "pytorch, huge pages", "flax, huge pages"]
LOOP = "bertjax, its loop"
ENVIRONMENTS = {
    "pytorch": ("torch==2.13.0", "transformers==5.23.0"),
    "flax": ("transformers==4.57.6", "flax==0.12.8", "jax==0.10.2", "optax==0.2.8"),
}


class Worker:
    """An implementation in a process of its own, which answers in lines of JSON."""

    def __init__(
        self, python: str, script: str, job: dict[str, Any], *, huge_pages: bool = False
    ) -> None:
        command = [python, str(HERE / "steps" / script), json.dumps(job)]
        environment = dict(os.environ)
        if huge_pages:
            environment[VARIABLE] = f"{TUNABLE}=1"
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first_answer = self.answer()
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.process.args}: ended with status {self.process.wait()}")

    def time(self, count: int) -> None:
        """Run `count` steps, and keep the seconds that one took, on the clock and of all cores."""
        assert self.process.stdin
        print(count, file=self.process.stdin, flush=True)
        answer = self.answer()
        self.seconds.append(answer["step_s"])
        self.cpu_seconds.append(answer["cpu_s"])

    def forget(self) -> float:
        """Forget what was kept, and return the last seconds on the clock."""
        last = self.seconds[-1]
        self.seconds.clear()
        self.cpu_seconds.clear()
        return last

    def end(self) -> dict[str, Any]:
        """End the process, and return all that it said, with the median of the kept seconds."""
        assert self.process.stdin
        self.process.stdin.close()
        return {
            **self.first_answer,
            **self.answer(),
            "step_s": statistics.median(self.seconds),
            "steps_s": self.seconds,
            "cpu_s": statistics.median(self.cpu_seconds),
            "cpus_s": self.cpu_seconds,
        }


def main() -> None:
    arguments = parsed_arguments()
    dtype = arguments.dtype or ("float32" if is_cpu() else "bfloat16")
    pythons = {"bertjax": sys.executable}
    if arguments.peer:
        for name in {peer_of(implementation) for implementation in arguments.implementations}:
            pythons[name] = environment(name, arguments.environments)
    rate = product_rate(dtype, arguments.rounds)
    versions = f"{platform.machine()}, {platform.python_version()}"
    print(f"{versions}, {dtype}; matrix products {rate / 1e9:,.1f} GFLOP/s\n")
    print_header(COLUMNS)
    entries = []
    for size in arguments.sizes:
        for length in arguments.lengths:
            for family in arguments.families or ["bert"]:
                about = {"model": f"{family}, {size}", "length": length}
                results = timed_in_turns(arguments, family, size, length, dtype, pythons)
                entries += print_results(arguments, about, results, rate)
    write_json(arguments.json, {"product_flops_per_s": rate, "dtype": dtype, "rows": entries})


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    families_help = "instead of BERT; without names, all of them"
    parser.add_argument("--families", nargs="*", choices=FAMILIES, help=families_help)
    parser.add_argument("--sizes", nargs="+", default=["mini", "small"], choices=SIZES)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128])
    parser.add_argument("--batch-size", type=int, default=32)
    dtype_help = "by default float32 on a CPU, bfloat16 elsewhere"
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help=dtype_help)
    parser.add_argument("--options", default="{}", help="fields of bertjax.ModelConfig, as JSON")
    parser.add_argument("--peer", action="store_true")
    loop_help = "also the step in bertjax's training loop, beside the bare one"
    parser.add_argument("--loop", action="store_true", help=loop_help)
    parser.add_argument("--implementations", nargs="+", default=PEERS)
    parser.add_argument("--environments", type=Path, default=Path("build/peers"))
    parser.add_argument("--rounds", type=int, default=5)
    seconds_help = "of steps, at least, in each turn"
    parser.add_argument("--seconds", type=float, default=3.0, help=seconds_help)
    parser.add_argument("--json", type=Path, default=Path("runs/step.json"))
    arguments = parser.parse_args()
    if arguments.families is None:
        return arguments
    arguments.families = arguments.families or FAMILIES
    # Of these models Flax has none.
    arguments.implementations = [
        name for name in arguments.implementations if not name.startswith("flax")
    ]
    return arguments


def is_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"


def environment(name: str, folder: Path) -> str:
    """Return the Python of a peer's environment, which is made if it is not there."""
    python = folder.resolve() / name / "bin" / "python"
    # Written last: an environment that was interrupted is made again.
    complete = folder / name / "whole"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / name)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]]
        subprocess.run(install, check=True)
        complete.write_text("")
    return str(python)


def peer_of(implementation: str) -> str:
    """Return `pytorch` for `pytorch compiled` and for `pytorch, huge pages`."""
    return implementation.replace(",", "").split()[0]


def product_rate(dtype: str, rounds: int) -> float:
    """Return the FLOP/s of large matrix products, in the best of the rounds."""
    worker = Worker(sys.executable, "bertjax_step.py", {"kind": "products", "dtype": dtype})
    for _ in range(rounds):
        worker.time(10)
    result = worker.end()
    return result["flops"] / min(result["steps_s"])


def timed_in_turns(
    arguments: argparse.Namespace,
    family: str,
    size: str,
    length: int,
    dtype: str,
    pythons: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """Time all implementations of one model at one length; return each one's result by its name."""
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(
            family, size, length, arguments.batch_size, dtype, Path(folder) / "batch.npz"
        ) | {"options": json.loads(arguments.options)}
        workers = started_workers(arguments, job, pythons)
        counts = step_counts(workers, arguments.seconds)
        for _ in range(arguments.rounds):
            for name, worker in workers.items():
                worker.time(counts[name])
        return {name: worker.end() for name, worker in workers.items()}


def started_workers(
    arguments: argparse.Namespace, job: dict[str, Any], pythons: dict[str, str]
) -> dict[str, Worker]:
    workers = {"bertjax": Worker(pythons["bertjax"], "bertjax_step.py", job)}
    if arguments.peer:
        for name in arguments.implementations:
            peer = peer_of(name)
            workers[name] = Worker(
                pythons[peer],
                f"{peer}_step.py",
                job | {"compiled": "compiled" in name},
                huge_pages=name.endswith("huge pages"),
            )
    if arguments.loop:
        workers[LOOP] = Worker(pythons["bertjax"], "bertjax_step.py", job | {"kind": "loop"})
    return workers


def step_counts(workers: dict[str, Worker], seconds: float) -> dict[str, int]:
    """Return the number of steps of each worker's turn, from the time of one step."""
    counts = {}
    for name, worker in workers.items():
        worker.time(1)
        counts[name] = max(1, round(seconds / worker.forget()))
    if LOOP in counts:
        # The loop waits for the device every 10 steps; the bare step takes as many to compare.
        multiple_of_ten = 10 * math.ceil(counts["bertjax"] / 10)
        counts["bertjax"] = counts[LOOP] = multiple_of_ten
    return counts


def print_results(
    arguments: argparse.Namespace,
    about: dict[str, Any],
    results: dict[str, dict[str, Any]],
    rate: float,
) -> list[dict[str, Any]]:
    """Print a line for each implementation, and return the entries for the JSON file."""
    entries = []
    own = results["bertjax"]
    about = {**about, "batch_size": arguments.batch_size}
    for name, result in results.items():
        seconds = result["step_s"]
        rows_per_second = arguments.batch_size / seconds
        entries.append({**about, "implementation": name, **result})
        print_line(
            (
                *about.values(),
                name,
                f"{1000 * seconds:,.1f}",
                f"{1000 * result['cpu_s']:,.1f}",
                f"{rows_per_second:,.1f}",
                f"{about['length'] * rows_per_second:,.0f}",
                f"{own['flops'] / seconds / rate:.0%}",
                f"{result['first_s'] - seconds:.1f}",
                f"{result['peak_bytes'] / 2**20:,.0f}",
                f"{ratio(result, own, 'steps_s'):.2f} x as fast",
                f"{ratio(result, own, 'cpus_s'):.2f} x",
            )
        )
    return entries


def ratio(result: dict[str, Any], own: dict[str, Any], seconds: str) -> float:
    """Return the median of the ratios of each round.

    A machine that others use is slower in one round than in another.
    """
    rounds = zip(result[seconds], own[seconds], strict=True)
    return statistics.median(theirs / ours for theirs, ours in rounds)


if __name__ == "__main__":
    main()
