"""A process on one core that does what it reads: each line asks for a stage of a cell.

    python -m ablations.worker CORE

A line is a JSON object with the stage and its arguments; the answer is a line with what was
measured. A stage that was cut off is asked for again and goes on where it stopped.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

MARK_EVERY = 5
"""Number of steps between two marks; the log waits for the device at the same steps."""
CALIBRATION_STEPS = 60
TASKS: dict[str, dict[str, Any]] = {
    "cola": {
        "train_files": ("in_domain_train.tsv",),
        "validation_files": ("in_domain_dev.tsv",),
        "max_seq_length": 32,
        "epochs": 1.0,
    },
    "mrpc": {
        "validation_files": ("msr_paraphrase_test.txt",),
        "max_seq_length": 64,
        "epochs": 1.0,
    },
}
"""How each task is fine-tuned: its files as `shared` sets have them, and its length."""


def main() -> None:
    # Before JAX counts the cores: XLA's pool of threads has one thread then.
    os.sched_setaffinity(0, {int(sys.argv[1])})
    # Answers alone go to the parent.
    answers, sys.stdout = sys.stdout, sys.stderr
    # Reading begins without TensorFlow, and a thread imports it meanwhile: that is no training.
    import tensorflow  # noqa: F401

    lines: Queue[str] = Queue()
    threading.Thread(target=read, args=(lines,), daemon=True).start()
    while line := lines.get():
        asked = json.loads(line)
        answer = STAGES[asked.pop("stage")](**asked)
        lines.task_done()
        print(json.dumps(answer), file=answers, flush=True)


def read(lines: Queue[str]) -> None:
    """Put the lines of the input into a queue, and an empty one at its end.

    If it ends while a line is worked on, the parent was killed: the process ends at once, so that
    the next start has the run to itself.
    """
    for line in sys.stdin:
        lines.put(line)
    if lines.unfinished_tasks:
        os._exit(1)
    lines.put("")


def calibrate(run: str, form: str, prepared: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the CPU seconds of a step of a form, from a short run."""
    few = {**sizes, "points": 1}
    trained = train(run, form, 0, CALIBRATION_STEPS, prepared, few)
    return {"seconds_per_step": trained["seconds"] / CALIBRATION_STEPS}


def train(
    run: str, form: str, seed: int, steps: int, prepared: str, sizes: dict[str, Any]
) -> dict[str, Any]:
    """Pretrain a cell; return its steps and their CPU seconds."""
    import bertjax
    from ablations.cells import cpu_seconds
    from ablations.forms import FORMS, Sizes, configuration

    folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration(form, seed, steps, Path(prepared), Sizes(**sizes))
    marks = folder / "cpu_seconds.jsonl"
    start = f"{os.getpid()} {time.time_ns()}"
    with marks.open("a") as file:

        def mark(stage: str, step: int, total: int) -> None:
            if stage == "train" and (step % MARK_EVERY == 0 or step == total):
                entry = {"start": start, "step": step, "seconds": time.process_time()}
                file.write(json.dumps(entry) + "\n")
                file.flush()

        bertjax.train(config, folder, progress=mark)
    switch = round(FORMS[form].causal_first * steps)
    return {
        "steps": steps,
        "tokens": steps * Sizes(**sizes).tokens,
        "seconds": cpu_seconds(read_lines(marks), [switch] if switch else []),
    }


def bits(run: str, form: str, texts: str) -> dict[str, Any]:
    """Return masked bits and bytes of each text, for each checkpoint that the run keeps."""
    from ablations.forms import FORMS
    from bertjax.inference.bits_per_byte import is_causal, masked_bits
    from bertjax.training.saved_model import load_network

    network = "generator" if FORMS[form].has_generator else "model"
    given = json.loads(Path(texts).read_text())
    points = []
    for step in sorted(int(path.name) for path in (Path(run) / "checkpoints").iterdir()):
        model = load_network(Path(run) / "checkpoints" / str(step), network)
        each = masked_bits(model, given)
        point = {
            "step": step,
            "bits": [own.bits for own in each],
            "bytes": [own.bytes for own in each],
            "unspelled_bytes": sum(own.unspelled_bytes for own in each),
            "is_causal": is_causal(model),
        }
        points.append(point)
    return {"network": network, "curve": points}


def finetune(run: str, task: str, seed: int, data: str, folder: str) -> dict[str, Any]:
    """Fine-tune the end of a cell on a task; return labels and predictions of all examples."""
    import bertjax

    config = bertjax.load_config("paper").replace(
        init_from=run,
        seed=seed,
        finetune={
            "tasks": (f"{task}={data}/{task}",),
            # One length, since each takes seconds to compile.
            "length_buckets": (),
            "restore_best": False,
            **TASKS[task],
        },
        # That of `tiny`; the paper's is for a model of six times this width.
        optimizer={"peak_learning_rate": 5e-4},
    )
    # The first evaluation is after the last step.
    config = config.replace(finetune={"evaluations_per_epoch": 0.001})
    bertjax.finetune(config, folder)
    (predicted,) = bertjax.predict(folder, "validation")
    return {
        "labels": [example.label for example in predicted.examples],
        "predictions": [prediction.label for prediction in predicted.predictions],
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; a killed process may have left a part."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


STAGES: dict[str, Callable[..., dict[str, Any]]] = {
    "calibrate": calibrate,
    "train": train,
    "bits": bits,
    "finetune": finetune,
}


if __name__ == "__main__":
    main()
