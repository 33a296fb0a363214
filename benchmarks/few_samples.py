"""Methods for fine-tuning with few examples (arXiv 2006.05987): what each does, over many seeds.

    python benchmarks/few_samples.py MODEL --task rte=DATA/rte [--seeds 20] \\
        --options "--finetune.train-files ..."

MODEL is a run, or a model folder of transformers. The first line of the table is fine-tuning as in
the original BERT: Adam without bias correction, 3 epochs. Each other line adds one method to Adam
with bias correction, the last line two. A run has failed if it is no better than the majority-class
baseline. Figures are those of the last epoch. Finished runs are kept in `--run-dir` and not run
again.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from reporting import argument_parser, print_header, print_line, write_json

METHODS = {
    "the original's Adam": "--optimizer.algorithm bert",
    "bias correction": "",
    "+ twice as long, 6 epochs": "--epochs 6",
    "+ top layer and pooler new": "--finetune.reinit-layers 1 --finetune.reinit-pooler True",
    "+ layer decay 0.95": "--optimizer.layer-decay 0.95",
    "+ mixout 0.1": "--optimizer.mixout 0.1",
    "+ label smoothing 0.1": "--finetune.label-smoothing 0.1",
    "+ new layers and layer decay": "--finetune.reinit-layers 1 --finetune.reinit-pooler True"
    " --optimizer.layer-decay 0.95",
}
COLUMNS = ("fine-tuning", "mean", "deviation", "best", "failed", "s")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--options", default="", help="options of `bertjax finetune`, as one word")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/few-samples"))
    arguments = parser.parse_args()
    arguments.run_dir.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {platform.python_version()}; {arguments.seeds} seeds", flush=True)
    print_header(COLUMNS)
    entries = []
    for method in arguments.methods:
        begin = time.perf_counter()
        sweep = swept(arguments, method)
        (setting,) = sweep["settings"]
        entries.append({"remedy": method, "baseline": sweep["baseline"], **setting})
        print_entry(method, setting, time.perf_counter() - begin)
        if len(entries) == 1:
            print_task(sweep)
    write_json(arguments.run_dir / "table.json", entries)


def print_entry(method: str, setting: dict[str, Any], seconds: float) -> None:
    figures = [percent(setting[name]) for name in ("mean", "deviation", "best")]
    failed = f"{setting['failed']} of {setting['runs']}"
    print_line([method, *figures, failed, f"{seconds:.0f}"])


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def print_task(sweep: dict[str, Any]) -> None:
    print(
        f"{sweep['metric']}, {sweep['training']:,} training and {sweep['validation']:,} validation"
        f" examples; majority-class baseline {percent(sweep['baseline'])}",
        file=sys.stderr,
    )


def swept(arguments: argparse.Namespace, method: str) -> dict[str, Any]:
    """Return what the `sweep.json` of all seeds has, after running what is not finished."""
    run_dir = arguments.run_dir / str(list(METHODS).index(method))
    command = [sys.executable, "-m", "bertjax.cli.main", "finetune", "paper"]
    command += ["--init-from", arguments.model, "--run-dir", str(run_dir)]
    command += ["--finetune.tasks", arguments.task, "--finetune.restore-best", "False"]
    # Only the last step is evaluated.
    command += ["--finetune.evaluations-per-epoch", "0.001"]
    command += ["--seeds", *map(str, range(arguments.seeds))]
    command += [*arguments.options.split(), *METHODS[method].split()]
    with (arguments.run_dir / "output.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output)
    return json.loads((run_dir / "sweep.json").read_text())


if __name__ == "__main__":
    main()
