"""The same fine-tuning by bertjax and by `transformers` in PyTorch: figures on the validation set,
seed by seed.

    python benchmarks/finetune_peer.py --init-from MODEL_FOLDER --task mrpc=DATA --seeds 0 1 2 --json peer.json
    python benchmarks/finetune_peer.py --init-from MODEL_FOLDER --task mrpc=DATA --check-step --batch-size 8

MODEL_FOLDER is a BERT as `transformers` saves it, the task one of text classification or
regression. Both sides get the same rows of ids, labels, batch size, steps, dropout and figures,
float32, and AdamW as in bertjax.config.OptimizerConfig (eps 1e-6, weight decay 0.01 but for biases
and layer norms, gradients clipped at norm 1, linear warmup from a first rate of 0, linear decay);
both report the last step, none is chosen. Seeds alternate between them. The JSON file is written
after each seed, and seeds in it are not done again.

What differs: random numbers (head, shuffle, dropout; the head's normal of 0.02 is cut at two
deviations in bertjax, whole in PyTorch), and batches: bertjax puts rows of like lengths together
and pads to one of a few lengths, PyTorch's side draws rows evenly and pads to the batch's longest.
Seconds are of training and one evaluation; bertjax's have compilation in them, most of it in the
first seed of a call, and the writing of a checkpoint.

`--check-step` leaves out all that is random: three steps on the same batches from the same weights,
head included, without dropout, at rates of 3e-4 and below. Exit status 1 if loss, gradient norm or
parameters then differ by more than rounding.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from bertjax.cli.arguments import quiet_libraries
from bertjax.config import Config, FinetuneConfig, OptimizerConfig, TrainConfig
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.finetuning import finetune
from bertjax.finetuning.batches import item_lengths, make_batch
from bertjax.finetuning.finetune import Prepared
from bertjax.interop.checkpoints.tensor_mapping import export_tensors
from bertjax.interop.checkpoints.tensor_names import torch_dialect
from bertjax.interop.import_model import import_model
from bertjax.model.functional import TASKS
from bertjax.parallel.mesh import make_mesh
from bertjax.storage import read_json, write_whole
from bertjax.tasks.classification.task import TextTask
from bertjax.training.optimization.optimizer import make_optimizer
from bertjax.training.saved_model import load_model
from bertjax.training.step import TrainState, jit_train_step

PROBLEMS = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}
SIDES = ("bertjax", "transformers")
COLUMNS = {"score": ".4f", "loss": ".4f", "seconds": ".1f"}
CHECKED_STEPS = 3
# above fine-tuning's usual ones, so that what changes stands out from the parameters' rounding
CHECKED_RATE = 3e-4
# Relative: of the parameters to their own norm, and to that of what the steps changed in them.
# Weight decay on what should have none is 2e-4 of the change, 12 times rounding.
TOLERANCES = {"loss": 1e-4, "grad_norm": 1e-4, "params": 1e-5, "change": 1e-4}


class Job(NamedTuple):
    """What both sides are to do."""

    folder: str
    """The model as `transformers` saved it."""
    config: Config
    """Resolved for the data; its `init_from` is the same model as a run."""
    prepared: Prepared
    tokenizer: Tokenizer

    @property
    def task(self) -> TextTask:
        task = self.prepared.opened[0].task
        assert isinstance(task, TextTask)
        return task


def main() -> int:
    asked = arguments()
    quiet_libraries()
    try:
        need_peer()
        # Else an accelerator would take fewer bits to multiply by; PyTorch's default is float32.
        jax.config.update("jax_default_matmul_precision", "highest")
        print("\n".join(f"{name}: {value}" for name, value in machine().items()), flush=True)
        with tempfile.TemporaryDirectory() as name:
            return (
                check_step(asked, epath.Path(name))
                if asked.check_step
                else compare(asked, epath.Path(name))
            )
    except UserError as error:
        print(f"finetune_peer: {error}", file=sys.stderr)
        return 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--init-from", required=True)
    parser.add_argument("--task", required=True, help="NAME=PLACE, as finetune.tasks")
    for name in ("train-files", "validation-files", "columns", "text-columns"):
        parser.add_argument(f"--{name}", nargs="+", default=[], help=f"as finetune.{name}")
    parser.add_argument("--label-column", default="")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-train-examples", type=int, default=0)
    parser.add_argument("--max-seq-length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--warmup-fraction", type=float, default=0.1)
    parser.add_argument("--json", type=Path, default=Path("finetune_peer.json"))
    parser.add_argument("--check-step", action="store_true")
    return parser.parse_args()


def need_peer() -> None:
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(
            f"{error.name}: found no such package, expected it: pip install torch transformers"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def machine() -> dict[str, str]:
    import torch

    kinds = sorted({device.device_kind for device in jax.devices()})
    return {
        "processor": f"{processor()}, {os.cpu_count()} CPUs",
        "devices": f"JAX {len(jax.devices())} x {', '.join(kinds)}; PyTorch {torch_device()}, "
        f"{torch.get_num_threads()} threads",
        "versions": ", ".join(
            f"{name} {version(name)}"
            for name in ("bertjax", "jax", "flax", "optax", "torch", "transformers", "numpy")
        )
        + f", Python {platform.python_version()}",
    }


def processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def torch_device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def jobs(asked: argparse.Namespace, folder: epath.Path) -> Callable[[int], Job]:
    """What a seed has to do; the model is imported into `folder`, the data read once if all seeds
    have the same.
    """
    imported = import_model(asked.init_from, folder / "init")
    tokenizer = imported.tokenizer
    if tokenizer is None:
        raise UserError(f"{asked.init_from}: found no tokenizer, expected one beside the model")
    config = Config(
        init_from=str(folder / "init"),
        model=imported.config.model,
        data=imported.config.data,
        optimizer=OptimizerConfig(peak_learning_rate=asked.learning_rate, warmup_steps=0),
        train=TrainConfig(batch_size=asked.batch_size, keep_checkpoints=1),
        finetune=FinetuneConfig(
            tasks=(asked.task,),
            train_files=tuple(asked.train_files),
            validation_files=tuple(asked.validation_files),
            columns=tuple(asked.columns),
            text_columns=tuple(asked.text_columns),
            label_column=asked.label_column,
            max_train_examples=asked.max_train_examples,
            max_seq_length=asked.max_seq_length,
            epochs=asked.epochs,
            warmup_fraction=asked.warmup_fraction,
            restore_best=False,
        ),
    )
    read: dict[int, Prepared] = {}

    def job(seed: int) -> Job:
        own = dataclasses.replace(config, seed=seed)
        key = seed if asked.max_train_examples else 0
        if key not in read:
            read.clear()
            read[key] = finetune.prepare(own, tokenizer)
        task = read[key].opened[0].task
        check(
            isinstance(task, TextTask),
            where="--task",
            found=asked.task,
            expected="one of text classification or regression",
        )
        resolved = finetune.resolve(own, read[key], imported.config.model.heads)
        steps = resolved.train.steps
        train = dataclasses.replace(resolved.train, eval_every_steps=steps, save_every_steps=steps)
        return Job(
            asked.init_from, dataclasses.replace(resolved, train=train), read[key], tokenizer
        )

    return job


def compare(asked: argparse.Namespace, folder: epath.Path) -> int:
    """Train both with every seed and print the table."""
    path = epath.Path(asked.json)
    settings = {
        name: value
        for name, value in vars(asked).items()
        if name not in ("seeds", "json", "check_step")
    }
    content: dict[str, Any] = {"settings": settings, "machine": machine(), "seeds": {}}
    if path.exists():
        content |= {
            "seeds": read_json(path).get("seeds"),
            "settings": read_json(path).get("settings"),
        }
        check(
            content["settings"] == settings,
            where=str(path),
            found="other settings",
            expected="those of this call, or another file",
        )
    job_of = jobs(asked, folder)
    metric = job_of(asked.seeds[0]).task.metric
    names = [f"{side}: {what}" for what in (metric, "loss", "s") for side in SIDES]
    print(f"\n| seed | {' | '.join(names)} |\n{'| --- ' * 7}|", flush=True)
    for seed in asked.seeds:
        if str(seed) not in content["seeds"]:
            job = job_of(seed)
            content["steps"] = job.config.train.steps
            content["seeds"][str(seed)] = {
                "bertjax": run_ours(job, folder / "run"),
                "transformers": run_peer(job),
            }
            write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
        row = content["seeds"][str(seed)]
        values = [f"{row[side][name]:{form}}" for name, form in COLUMNS.items() for side in SIDES]
        print(f"| {seed} | {' | '.join(values)} |", flush=True)
    rows = [content["seeds"][str(seed)] for seed in asked.seeds]
    print(f"{metric}: {described(rows, 'score')}\nloss: {described(rows, 'loss')}")
    return 0


def described(rows: list[dict[str, Any]], name: str) -> str:
    """Means and sample deviations of a figure, and whether the means are nearer than the pooled
    deviation.
    """
    values = {side: [row[side][name] for row in rows] for side in SIDES}
    means = [statistics.mean(own) for own in values.values()]
    if len(rows) < 2:
        return f"{means[0]:.4f} and {means[1]:.4f}; two seeds or more would tell their deviation"
    deviations = [statistics.stdev(own) for own in values.values()]
    each = [
        f"{s} {m:.4f} (deviation {d:.4f})"
        for s, m, d in zip(values, means, deviations, strict=True)
    ]
    pooled, apart = math.hypot(*deviations) / math.sqrt(2), abs(means[0] - means[1])
    agree = apart < pooled or apart == 0
    error = pooled * math.sqrt(2 / len(rows))
    return (
        f"{', '.join(each)}; {apart:.4f} apart, {'less' if agree else 'not less'} than the seeds' deviation, "
        f"{pooled:.4f} (of both, pooled; the standard error of the distance is {error:.4f})"
    )


def run_ours(job: Job, run_dir: epath.Path) -> dict[str, float]:
    begin = time.perf_counter()
    outcome = finetune.finetune(job.config, run_dir, job.prepared, job.tokenizer)
    seconds = time.perf_counter() - begin
    check(
        not outcome.stopped,
        where="bertjax",
        found=f"a signal at step {outcome.step}",
        expected="none",
    )
    figures = finetune.write_result(job.config, run_dir, outcome.step, job.prepared)["figures"]
    run_dir.rmtree()
    return {**figures, "seconds": seconds}


def run_peer(job: Job) -> dict[str, float]:
    import torch

    begin = time.perf_counter()
    c, rows = job.config, job.prepared.train[job.task.name]
    torch.manual_seed(c.seed)
    model = peer_model(job).train()
    step = peer_step(job, model, c.train.steps, c.optimizer.warmup_steps)
    for items in itertools.islice(shuffled(rows.items, c.train.batch_size), c.train.steps):
        step(peer_batch(job, rows, items))
    split = job.prepared.validation[0]
    model.eval()
    outputs: list[np.ndarray] = []
    loss = 0.0
    with torch.no_grad():
        for items in np.array_split(
            np.arange(split.rows.items), -(-split.rows.items // c.train.batch_size)
        ):
            batch = peer_batch(job, split.rows, items)
            found = model(**batch)
            loss += found.loss.item() * len(items) / split.rows.items
            outputs.extend(probabilities(job.task, found.logits))
    figures = job.task.figures(
        job.task.predict(outputs, split.rows, split.examples), split.examples
    )
    return {
        **figures,
        "loss": loss,
        "score": figures[job.task.metric],
        "seconds": time.perf_counter() - begin,
    }


def peer_model(job: Job) -> Any:
    """The model with a new head from PyTorch's generator."""
    import torch
    from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

    outputs = max(1, len(job.task.labels))
    problem = PROBLEMS[job.task.label_type]
    model = AutoModelForSequenceClassification.from_pretrained(
        job.folder, num_labels=outputs, problem_type=problem, dtype=torch.float32
    )
    check(
        isinstance(model, BertForSequenceClassification),
        where=job.folder,
        found=type(model).__name__,
        expected="a BERT",
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def peer_step(
    job: Job, model: Any, steps: int, warmup: int
) -> Callable[[dict[str, Any]], tuple[float, float]]:
    """One update on a batch; gives its loss and the norm of its gradient before clipping."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    o = job.config.optimizer
    named = list(model.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [
        {"params": decayed, "weight_decay": o.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=o.peak_learning_rate, betas=(o.b1, o.b2), eps=o.eps)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)

    def step(batch: dict[str, Any]) -> tuple[float, float]:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), o.max_grad_norm)
        optimizer.step()
        schedule.step()
        return loss.item(), norm.item()

    return step


def shuffled(items: int, batch_size: int) -> Iterator[np.ndarray]:
    """Epoch after epoch, each a permutation from PyTorch's generator cut into batches, the last
    perhaps short.
    """
    import torch

    while True:
        order = torch.randperm(items).numpy()
        yield from (order[begin : begin + batch_size] for begin in range(0, items, batch_size))


def peer_batch(job: Job, rows: Any, items: np.ndarray) -> dict[str, Any]:
    """The items under the names of `transformers`, padded to the longest of them."""
    length = int(item_lengths(rows, job.config.finetune.max_seq_length)[items].max())
    return as_tensors(make_batch(rows, items, length, pad_id=job.tokenizer.pad_id))


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    names = {
        "input_ids": "input_ids",
        "attention_mask": "input_mask",
        "token_type_ids": "segment_ids",
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labels = torch.from_numpy(batch["labels"])
    found = {theirs: torch.from_numpy(batch[ours]).long() for theirs, ours in names.items()}
    found["labels"] = labels if labels.is_floating_point() else labels.long()
    return {name: tensor.to(device) for name, tensor in found.items()}


def probabilities(task: TextTask, logits: Any) -> np.ndarray:
    """What `TextTask.outputs` gives of the same scores."""
    if task.label_type == "number":
        return logits.cpu().numpy()
    return (logits.softmax(-1) if task.label_type == "class" else logits.sigmoid()).cpu().numpy()


def check_step(asked: argparse.Namespace, folder: epath.Path) -> int:
    """Print how far losses, gradient norms and parameters are apart on the same batches; 1 if
    beyond `TOLERANCES`.
    """
    job = without_chance(jobs(asked, folder)(asked.seeds[0]))
    rows, size, steps = job.prepared.train[job.task.name], asked.batch_size, CHECKED_STEPS
    check(
        rows.items >= steps * size,
        where="training examples",
        found=rows.items,
        expected=f"{steps} batches of {size}",
    )
    length = int(item_lengths(rows, asked.max_seq_length)[: steps * size].max())
    chosen = np.arange(steps * size).reshape(steps, size)

    objective = finetune.objective_of(job.config, job.prepared)
    params = first_params(job, objective)
    model = peer_model(job).eval()
    begun = named_tensors(job, params)
    copy_new(job, model, begun)
    state = TrainState(np.int32(0), params, make_optimizer(job.config.optimizer).init(params))
    ours = jit_train_step(job.config, make_mesh(job.config.mesh), objective)
    theirs = peer_step(job, model, steps, job.config.optimizer.warmup_steps)

    apart = {"begin": distance(begun, state_of(model), begun)}
    print(
        f"\n{steps} batches of {size} x {length}; parameters at first: {apart['begin']:.1e} apart"
    )
    print(
        f"| step | loss: bertjax | transformers | gradient norm: bertjax | transformers |\n{'| --- ' * 5}|"
    )
    for number, items in enumerate(chosen):
        batch = make_batch(rows, items, length, pad_id=job.tokenizer.pad_id, task=job.task.name)
        state, metrics = ours(state, batch)
        plain = {name.rpartition("/")[2]: values for name, values in batch.items()}
        found = dict(zip(("loss", "grad_norm"), theirs(as_tensors(plain)), strict=True))
        for name, value in found.items():
            apart[name] = max(apart.get(name, 0.0), abs(float(metrics[name]) - value) / abs(value))
        pairs = [f"{float(metrics[name]):.7f} | {value:.7f}" for name, value in found.items()]
        print(f"| {number + 1} | {' | '.join(pairs)} |", flush=True)
    after, peer = named_tensors(job, state.params), state_of(model)
    apart["params"] = distance(after, peer, after)
    apart["change"] = distance(after, peer, {name: after[name] - begun[name] for name in after})
    largest = max(float(np.abs(after[name] - peer[name]).max()) for name in after)
    print(
        f"apart, relative: loss {apart['loss']:.1e}, gradient norm {apart['grad_norm']:.1e}; after {steps} steps "
        f"parameters {apart['params']:.1e} of their norm, {apart['change']:.1e} of their change, at most {largest:.1e}"
    )
    agree = apart["begin"] == 0 and all(apart[name] <= limit for name, limit in TOLERANCES.items())
    print("they agree" if agree else f"they differ: expected at most {TOLERANCES}")
    return 0 if agree else 1


def without_chance(job: Job) -> Job:
    """The job without dropout, for `CHECKED_STEPS` steps from `CHECKED_RATE` down, none of them at
    rate 0.
    """
    c = job.config
    model = dataclasses.replace(c.model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    optimizer = dataclasses.replace(c.optimizer, warmup_steps=0, peak_learning_rate=CHECKED_RATE)
    train = dataclasses.replace(c.train, steps=CHECKED_STEPS)
    return job._replace(
        config=dataclasses.replace(c, model=model, optimizer=optimizer, train=train)
    )


def first_params(job: Job, objective: Any) -> dict[str, Any]:
    new = objective.init(jax.random.key(job.config.seed))
    restored = load_model(job.config.init_from).params
    wanted = {group: leaves for group, leaves in restored.items() if group in new}
    return dict(
        objective.initial_params(new, {k: v for k, v in wanted.items() if k not in job.config.new_heads})
    )


def named_tensors(job: Job, params: Any) -> dict[str, np.ndarray]:
    """Copies of the parameters under PyTorch's names."""
    head = params[TASKS][job.task.name]
    encoder = {group: leaves for group, leaves in params.items() if group != TASKS}
    found = {
        name: np.array(values) for name, values in export_tensors(encoder, torch_dialect("bert"))
    }
    return found | {
        "classifier.weight": np.array(head["kernel"]).T,
        "classifier.bias": np.array(head["bias"]),
    }


def copy_new(job: Job, model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Give PyTorch's model the head, and the pooler if MODEL_FOLDER has none; the rest it read by
    itself.
    """
    import torch

    beginnings = ("classifier.", *(f"bert.{head}." for head in job.config.new_heads))
    new = {
        name: torch.tensor(values)
        for name, values in tensors.items()
        if name.startswith(beginnings)
    }
    check(
        not model.load_state_dict(new, strict=False).unexpected_keys,
        where=job.folder,
        found="other tensors",
        expected="those of a BERT",
    )


def state_of(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.named_parameters()}


def distance(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], scale: dict[str, np.ndarray]
) -> float:
    """The norm of a - b over the norm of `scale`, over all tensors; all must have the same names."""
    assert a.keys() == b.keys() == scale.keys(), set(a) ^ set(b)

    def square(values: np.ndarray) -> float:
        return float((values.astype(np.float64) ** 2).sum())

    return math.sqrt(
        sum(square(a[n] - b[n]) for n in a) / sum(square(values) for values in scale.values())
    )


if __name__ == "__main__":
    sys.exit(main())
