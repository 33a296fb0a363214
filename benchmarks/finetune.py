"""Results of a model on real tasks after fine-tuning, over seeds, and of the same model untrained.

    python benchmarks/finetune.py MODEL --data DATA [--tasks rte mrpc ...] [--seeds 0 1 2] \\
        [--untrained]

MODEL is a run, or a model folder of transformers. DATA has a folder for each task, with the files
that `TASKS` below names; tasks without a folder are left out, with a message. Of each training set
`--max-train-examples` are drawn by the seed. With `--untrained` every task is also learnt by a
model of the same shape with random parameters. Figures are those of the last epoch, not of the best
one, on the whole validation set. A run has failed if it is no better than the majority-class
baseline. Finished runs are kept in `--run-dir` and not run again.
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

from reporting import argument_parser, print_header, print_line, write_json


class Task(NamedTuple):
    """A task: its name and kind, its folder in DATA, and options other than the defaults."""

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
        "--finetune.columns sentence label --finetune.train-files dev.txt"
        " --finetune.validation-files test.txt",
    ),
}


CHINESE = ("thucnews",)  # only by name: for a model with a Chinese vocabulary


def main() -> None:
    arguments = parsed_arguments()
    arguments.run_dir.mkdir(parents=True, exist_ok=True)
    models = {"pretrained": imported(arguments.model, arguments.run_dir)}
    if arguments.untrained:
        models["untrained"] = untrained(models["pretrained"], arguments.run_dir / "untrained")
    seeds = ", ".join(arguments.seeds)
    print(f"{platform.machine()}, {platform.python_version()}; seeds {seeds}", flush=True)
    print_header(["task", "metric", "training, validation examples", *models, "s"])
    entries = []
    for name in arguments.tasks:
        folder = arguments.data / TASKS[name].folder
        if not folder.is_dir():
            print(f"{name}: left out, {folder} is not there", file=sys.stderr)
            continue
        begin = time.perf_counter()
        sweeps = {}
        for label, model in models.items():
            run_dir = arguments.run_dir / label / name
            sweeps[label] = fine_tuned(arguments, TASKS[name], model, run_dir)
        seconds = time.perf_counter() - begin
        entries.append({"task": name, "seconds": seconds, **sweeps})
        print_entry(name, sweeps, seconds)
    write_json(arguments.run_dir / "table.json", entries)


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    default_tasks = [name for name in TASKS if name not in CHINESE]
    parser.add_argument("--tasks", nargs="+", default=default_tasks, choices=TASKS)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--max-train-examples", type=int, default=0)
    parser.add_argument("--config", default="paper")
    parser.add_argument("--options", default="", help="options of `bertjax finetune`, as one word")
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/finetune-benchmark"))
    return parser.parse_args()


def print_entry(name: str, sweeps: dict[str, dict[str, Any]], seconds: float) -> None:
    sweep = next(iter(sweeps.values()))
    counts = f"{sweep['training']:,}, {sweep['validation']:,}"
    figures = [described(own) for own in sweeps.values()]
    print_line([name, sweep["metric"], counts, *figures, f"{seconds:.0f}"])


def imported(model: str, run_dir: Path) -> str:
    """Return the run to start from; a model of another program is imported once."""
    if (Path(model) / "checkpoints").exists():
        return model
    folder = run_dir / "imported"
    if not folder.exists():
        command = [sys.executable, "-m", "bertjax.cli.main", "import", model, "--to", str(folder)]
        subprocess.run(command, check=True)
    return str(folder)


def untrained(run: str, folder: Path) -> str:
    """Return a run, made in `folder`, of the same shape and tokenizer with random parameters."""
    if folder.exists():
        return str(folder)
    import jax

    from bertjax.data.tokenizers.tokenizer import load_tokenizer
    from bertjax.model import functional
    from bertjax.training.checkpoint import find_checkpoint, read_checkpoint_config
    from bertjax.training.saved_model import save_model

    run_dir, checkpoint = find_checkpoint(run)
    config = dataclasses.replace(read_checkpoint_config(checkpoint), init_from="")
    params = functional.init(config.model, jax.random.key(0))
    save_model(str(folder), config, params, load_tokenizer(run_dir / "tokenizer"), {})
    return str(folder)


def fine_tuned(
    arguments: argparse.Namespace, task: Task, model: str, run_dir: Path
) -> dict[str, Any]:
    """Return what the `sweep.json` of all seeds has, after running what is not finished."""
    data = arguments.data / task.folder
    if task.folder == "xquad":
        data = split_questions(data / "xquad.en.json", arguments.run_dir / "xquad")
    command = [sys.executable, "-m", "bertjax.cli.main", "finetune", arguments.config]
    command += ["--init-from", model, "--run-dir", str(run_dir)]
    command += ["--finetune.tasks", f"{task.entry}={data}"]
    command += ["--finetune.max-train-examples", str(arguments.max_train_examples)]
    command += ["--finetune.restore-best", "False"]
    # Only the last step is evaluated.
    command += ["--finetune.evaluations-per-epoch", "0.001"]
    command += ["--seeds", *arguments.seeds, *task.options.split(), *arguments.options.split()]
    with (arguments.run_dir / "output.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output)
    return json.loads((run_dir / "sweep.json").read_text())


def split_questions(file: Path, folder: Path) -> Path:
    """Write every fifth paragraph as the validation set, the others as the training set."""
    folder.mkdir(parents=True, exist_ok=True)
    articles = json.loads(file.read_text())["data"]
    parts: dict[str, list[Any]] = {"train": [], "dev": []}
    for article in articles:
        for number, paragraph in enumerate(article["paragraphs"]):
            split = "dev" if number % 5 == 4 else "train"
            parts[split].append({"title": article.get("title", ""), "paragraphs": [paragraph]})
    for name, data in parts.items():
        (folder / f"{name}.json").write_text(json.dumps({"version": "1.1", "data": data}))
    return folder


def described(sweep: dict[str, Any]) -> str:
    """Return mean and deviation in percent, and the number of failed runs if there are any."""
    (setting,) = sweep["settings"]
    failed = f"{setting['failed']} of {setting['runs']} failed"
    if setting["mean"] is None:
        return failed
    text = f"{100 * setting['mean']:.1f}"
    if setting["deviation"] is not None:
        text += f" ± {100 * setting['deviation']:.1f}"
    return f"{text} ({failed})" if setting["failed"] else text


if __name__ == "__main__":
    main()
