"""What the remedies for small training sets (arXiv 2006.05987) do, over many seeds.

    python benchmarks/few_samples.py MODEL --task rte=DATA/rte --options "--finetune.train-files ..." [--seeds 20]

MODEL is a run, or a model folder of transformers. The first row is fine-tuning as the original
BERT's: Adam without bias correction, 3 epochs. Each other row adds a remedy to Adam with bias
correction, the last one two. A failed run is one that is no better than saying the same of
everything. Figures are those of the last epoch. Finished runs are not run again: `--run-dir` keeps
them.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REMEDIES = {
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


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("model")
    options.add_argument("--task", required=True)
    options.add_argument(
        "--options", default="", help="more options of `bertjax finetune`, as one word"
    )
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--remedies", nargs="+", default=list(REMEDIES), choices=REMEDIES)
    options.add_argument("--run-dir", type=Path, default=Path("runs/few-samples"))
    asked = options.parse_args()
    asked.run_dir.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {platform.python_version()}; {asked.seeds} seeds", flush=True)
    print(
        "| fine-tuning | mean | deviation | best | failed | s |\n| --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    rows = []
    for number, name in enumerate(asked.remedies):
        begin = time.perf_counter()
        found = swept(asked, REMEDIES[name], asked.run_dir / str(list(REMEDIES).index(name)))
        (row,) = found["settings"]
        rows.append({"remedy": name, "baseline": found["baseline"], **row})
        shown = [
            "-" if row[key] is None else f"{100 * row[key]:.1f}"
            for key in ("mean", "deviation", "best")
        ]
        seconds = time.perf_counter() - begin
        print(
            f"| {name} | {' | '.join(shown)} | {row['failed']} of {row['runs']} | {seconds:.0f} |",
            flush=True,
        )
        if number == 0:
            about = f"{found['metric']}, {found['training']:,} training and {found['validation']:,} validation examples"
            print(
                f"{about}; saying the same of everything gives {100 * found['baseline']:.1f}",
                file=sys.stderr,
            )
    (asked.run_dir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")


def swept(asked: argparse.Namespace, remedy: str, run_dir: Path) -> dict[str, Any]:
    """What `sweep.json` says of all seeds."""
    command = [
        *(
            sys.executable,
            "-m",
            "bertjax.cli.main",
            "finetune",
            str(ROOT / "configs" / "finetune" / "paper.py"),
        ),
        *("--init-from", asked.model, "--run-dir", str(run_dir), "--finetune.tasks", asked.task),
        *("--finetune.restore-best", "False", "--finetune.evaluations-per-epoch", "0.001"),
        *("--seeds", *map(str, range(asked.seeds)), *asked.options.split(), *remedy.split()),
    ]
    with (asked.run_dir / "output.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output)
    return json.loads((run_dir / "sweep.json").read_text())


if __name__ == "__main__":
    main()
