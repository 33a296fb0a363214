"""What a model gets on real tasks after fine-tuning, over seeds; and what the same model gets
untrained.

    python benchmarks/finetune.py MODEL --data DATA [--tasks rte mrpc ...] [--seeds 0 1 2] [--untrained]

MODEL is a run, or a model folder of transformers. DATA has a folder for each task, as `TASKS` below
names its files; those that are not there are left out, and said. Of each training set
`--max-train-examples` are drawn by the seed. With `--untrained` every task is also learnt by a
model of the same shape from random parameters. Figures are those of the last epoch on the whole
validation set, not of the best one. A failed run is one that is no better than saying the same of
everything. Finished runs are not run again: `--run-dir` keeps them.
"""

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Task(NamedTuple):
    """How a task's data lie in DATA, and what is not the default for it."""

    entry: str
    folder: str
    options: str = ""


RTE = "--finetune.train-files rte1_dev.xml rte2_dev.xml rte3_dev.xml rte1_test.xml rte2_test.xml"
TASKS = {
    "sst2": Task("sst2", "sst2", "--finetune.columns sentence label"),
    "cola": Task(
        "cola",
        "cola",
        "--finetune.train-files in_domain_train.tsv --finetune.validation-files in_domain_dev.tsv",
    ),
    "mrpc": Task("mrpc", "mrpc", "--finetune.validation-files msr_paraphrase_test.txt"),
    "rte": Task("rte", "rte", f"{RTE} --finetune.validation-files rte3_test.xml"),
    "stsb": Task(
        "stsb",
        "sts",
        "--finetune.columns score sentence1 sentence2 --finetune.train-files 2015.train.tsv"
        " --finetune.validation-files 2015.test.tsv",
    ),
    "wnut17": Task(
        "wnut17",
        "wnut17",
        "--finetune.train-files wnut17train.conll --finetune.validation-files emerging.dev.conll",
    ),
    "wikiann": Task(
        "wikiann",
        "wikiann_en",
        "--finetune.train-files train.conll --finetune.validation-files dev.conll",
    ),
    "squad": Task("squad", "xquad", "--finetune.max-seq-length 256"),
    "codah": Task("codah", "codah"),
    "thucnews": Task(
        "thucnews:classification",
        "thucnews_zh",
        "--finetune.columns sentence label --finetune.train-files dev.txt --finetune.validation-files test.txt",
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("model")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument(
        "--tasks", nargs="+", default=[name for name in TASKS if name != "thucnews"], choices=TASKS
    )
    options.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    options.add_argument("--max-train-examples", type=int, default=0)
    options.add_argument("--config", default=str(ROOT / "configs" / "finetune" / "paper.py"))
    options.add_argument(
        "--options", default="", help="more options of `bertjax finetune`, as one word"
    )
    options.add_argument("--untrained", action="store_true")
    options.add_argument("--run-dir", type=Path, default=Path("runs/finetune-benchmark"))
    asked = options.parse_args()
    models = {"pretrained": taken(asked.model, asked.run_dir)}
    if asked.untrained:
        models["untrained"] = untrained(models["pretrained"], asked.run_dir / "untrained")
    print(
        f"{platform.machine()}, {platform.python_version()}; seeds {', '.join(asked.seeds)}",
        flush=True,
    )
    print(
        "| task | metric | training, validation examples | "
        + "".join(f"{name} | " for name in models)
        + "s |"
    )
    print("| --- | --- | --- | " + "--- | " * (len(models) + 1), flush=True)
    rows = []
    for name in asked.tasks:
        task, begin = TASKS[name], time.perf_counter()
        if not (asked.data / task.folder).is_dir():
            print(f"{name}: left out, {asked.data / task.folder} is not there", file=sys.stderr)
            continue
        found = {
            label: fine_tuned(asked, task, model, asked.run_dir / label / name)
            for label, model in models.items()
        }
        rows.append({"task": name, "seconds": time.perf_counter() - begin, **found})
        about = next(iter(found.values()))
        shown = "".join(f"{in_words(one)} | " for one in found.values())
        counts = f"{about['training']:,}, {about['validation']:,}"
        print(
            f"| {name} | {about['metric']} | {counts} | {shown}{rows[-1]['seconds']:.0f} |",
            flush=True,
        )
    (asked.run_dir / "table.json").write_text(json.dumps(rows, indent=1) + "\n")


def taken(model: str, run_dir: Path) -> str:
    """The run to start from; a model of another program is imported once."""
    if (Path(model) / "checkpoints").exists():
        return model
    made = run_dir / "imported"
    if not made.exists():
        subprocess.run(
            [sys.executable, "-m", "bertjax.cli.main", "import", model, "--to", str(made)],
            check=True,
        )
    return str(made)


def untrained(run: str, made: Path) -> str:
    """A run of the same shape and tokenizer with random parameters."""
    if not made.exists():
        import jax

        from bertjax.data.tokenizers.tokenizer import load_tokenizer
        from bertjax.model import functional
        from bertjax.training.checkpoint import find_checkpoint, read_checkpoint_config
        from bertjax.training.saved_model import save_model

        run_dir, folder = find_checkpoint(run)
        config = read_checkpoint_config(folder)
        params = functional.init(config.model, jax.random.key(0))
        save_model(
            str(made),
            dataclasses.replace(config, init_from=""),
            params,
            load_tokenizer(run_dir / "tokenizer"),
            {},
        )
    return str(made)


def fine_tuned(asked: argparse.Namespace, task: Task, model: str, run_dir: Path) -> dict[str, Any]:
    """What `sweep.json` says, and how many examples there were."""
    data = asked.data / task.folder
    own = task.options
    if task.folder == "xquad":
        data = split_questions(data / "xquad.en.json", asked.run_dir / "xquad")
    command = [
        *(sys.executable, "-m", "bertjax.cli.main", "finetune", asked.config),
        *(
            "--init-from",
            model,
            "--run-dir",
            str(run_dir),
            "--finetune.tasks",
            f"{task.entry}={data}",
        ),
        *(
            "--finetune.max-train-examples",
            str(asked.max_train_examples),
            "--finetune.restore-best",
            "False",
        ),
        *(
            "--finetune.evaluations-per-epoch",
            "0.001",
            "--seeds",
            *asked.seeds,
            *own.split(),
            *asked.options.split(),
        ),
    ]
    with (run_dir.parent.parent / "output.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output)
    found = json.loads((run_dir / "sweep.json").read_text())
    return found


def split_questions(whole: Path, folder: Path) -> Path:
    """Four fifths of the paragraphs to train on, the others to validate, by their order."""
    folder.mkdir(parents=True, exist_ok=True)
    articles = json.loads(whole.read_text())["data"]
    parts: dict[str, list[Any]] = {"train": [], "dev": []}
    for article in articles:
        for number, paragraph in enumerate(article["paragraphs"]):
            parts["dev" if number % 5 == 4 else "train"].append(
                {"title": article.get("title", ""), "paragraphs": [paragraph]}
            )
    for name, data in parts.items():
        (folder / f"{name}.json").write_text(json.dumps({"version": "1.1", "data": data}))
    return folder


def in_words(found: dict[str, Any]) -> str:
    """Mean and deviation in percent, and failed runs where there are any."""
    (row,) = found["settings"]
    if row["mean"] is None:
        return f"{row['failed']} of {row['runs']} failed"
    deviation = f" ± {100 * row['deviation']:.1f}" if row["deviation"] is not None else ""
    failed = f" ({row['failed']} of {row['runs']} failed)" if row["failed"] else ""
    return f"{100 * row['mean']:.1f}{deviation}{failed}"


if __name__ == "__main__":
    main()
