"""The same fine-tuning by bertjax and by `transformers` in PyTorch: validation figures by seed.

    python benchmarks/finetune_peer.py --init-from MODEL_FOLDER --task mrpc=DATA --seeds 0 1 2 \\
        --json peer.json
    python benchmarks/finetune_peer.py --init-from MODEL_FOLDER --task mrpc=DATA --batch-size 8 \\
        --check-step

MODEL_FOLDER is a BERT as `transformers` saves it; the task is one of text classification or
regression. Both sides get the same rows of token ids, labels, batch size, steps, dropout and
figures, float32, and AdamW as in bertjax.config.OptimizerConfig: eps 1e-6, weight decay 0.01 except
for biases and layer norms, gradients clipped at norm 1, linear warmup from a first rate of 0,
linear decay. Both report the last step; no best one is chosen. The two sides alternate, seed by
seed. The JSON file is written after each seed, and seeds that it has are not run again.

Two things differ. Random numbers: the head, the order of the rows, dropout; the head's normal
distribution of deviation 0.02 is truncated at two deviations in bertjax, and not in PyTorch.
Batches: bertjax puts rows of similar lengths together and pads to one of a few lengths; PyTorch's
side draws rows uniformly and pads to the longest of the batch. Seconds are those of training and
one evaluation. bertjax's include compilation, most of it in the first seed of a call, and writing a
checkpoint.

`--check-step` removes all that is random: three steps on the same batches from the same weights,
head included, without dropout, at rates of 3e-4 and below. The exit status is 1 if loss, gradient
norm or parameters then differ by more than rounding.
"""

import argparse
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
from reporting import argument_parser, print_header, print_line

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
# Above the usual rates of fine-tuning, so that changes stand out from the parameters' rounding.
CHECKED_RATE = 3e-4
# Relative differences: of the parameters, to their norm (params) and to the norm of their change
# (change). Weight decay on what should have none is 2e-4 of the change, 12 times rounding.
TOLERANCES = {"loss": 1e-4, "grad_norm": 1e-4, "params": 1e-5, "change": 1e-4}


class Job(NamedTuple):
    """One fine-tuning run, the same for both sides."""

    folder: str
    """Folder of the model as `transformers` saved it."""
    config: Config
    """Configuration, resolved for the data; `init_from` is the same model as a run."""
    prepared: Prepared
    tokenizer: Tokenizer

    @property
    def task(self) -> TextTask:
        task = self.prepared.opened[0].task
        assert isinstance(task, TextTask)
        return task


def main() -> int:
    arguments = parsed_arguments()
    quiet_libraries()
    try:
        need_peer()
        # By default accelerators multiply with fewer bits; PyTorch's default is float32.
        jax.config.update("jax_default_matmul_precision", "highest")
        print("\n".join(f"{name}: {value}" for name, value in machine().items()), flush=True)
        run = check_step if arguments.check_step else compare
        with tempfile.TemporaryDirectory() as folder:
            return run(arguments, epath.Path(folder))
    except UserError as error:
        print(f"finetune_peer: {error}", file=sys.stderr)
        return 2


def parsed_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
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
    packages = ("bertjax", "jax", "flax", "optax", "torch", "transformers", "numpy")
    versions = [f"{name} {version(name)}" for name in packages]
    versions.append(f"Python {platform.python_version()}")
    return {
        "processor": f"{processor()}, {os.cpu_count()} CPUs",
        "devices": f"JAX {len(jax.devices())} x {', '.join(kinds)}; PyTorch {torch_device()}, "
        f"{torch.get_num_threads()} threads",
        "versions": ", ".join(versions),
    }


def processor() -> str:
    """Return the processor's name, as Linux has it, or the machine's type."""
    description = Path("/proc/cpuinfo")
    if description.exists():
        for line in description.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def torch_device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def jobs(arguments: argparse.Namespace, folder: epath.Path) -> Callable[[int], Job]:
    """Return a function of a seed that gives the seed's job.

    The model is imported into `folder`. The data are read once if they are the same for all seeds.
    """
    imported = import_model(arguments.init_from, folder / "init")
    tokenizer = imported.tokenizer
    if tokenizer is None:
        raise UserError(f"{arguments.init_from}: found no tokenizer, expected one beside the model")
    config = Config(
        init_from=str(folder / "init"),
        model=imported.config.model,
        data=imported.config.data,
        optimizer=OptimizerConfig(peak_learning_rate=arguments.learning_rate, warmup_steps=0),
        train=TrainConfig(batch_size=arguments.batch_size, keep_checkpoints=1),
        finetune=FinetuneConfig(
            tasks=(arguments.task,),
            train_files=tuple(arguments.train_files),
            validation_files=tuple(arguments.validation_files),
            columns=tuple(arguments.columns),
            text_columns=tuple(arguments.text_columns),
            label_column=arguments.label_column,
            max_train_examples=arguments.max_train_examples,
            max_seq_length=arguments.max_seq_length,
            epochs=arguments.epochs,
            warmup_fraction=arguments.warmup_fraction,
            restore_best=False,
        ),
    )
    prepared: dict[int, Prepared] = {}

    def job(seed: int) -> Job:
        own = config.replace(seed=seed)
        # The seed draws the examples, if not all are used. Of one seed at a time, to save memory.
        key = seed if arguments.max_train_examples else 0
        if key not in prepared:
            prepared.clear()
            prepared[key] = finetune.prepare(own, tokenizer)
        task = prepared[key].opened[0].task
        check(
            isinstance(task, TextTask),
            where="--task",
            found=arguments.task,
            expected="one of text classification or regression",
        )
        resolved = finetune.resolve(own, prepared[key], imported.config.model.heads)
        steps = resolved.train.steps
        resolved = resolved.replace(train={"eval_every_steps": steps, "save_every_steps": steps})
        return Job(arguments.init_from, resolved, prepared[key], tokenizer)

    return job


def compare(arguments: argparse.Namespace, folder: epath.Path) -> int:
    """Train both with every seed and print the table."""
    path = epath.Path(arguments.json)
    settings = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("seeds", "json", "check_step")
    }
    content: dict[str, Any] = {"settings": settings, "machine": machine(), "seeds": {}}
    if path.exists():
        earlier = read_json(path)
        content |= {"seeds": earlier.get("seeds"), "settings": earlier.get("settings")}
        check(
            content["settings"] == settings,
            where=str(path),
            found="other settings",
            expected="those of this call, or another file",
        )
    job_of = jobs(arguments, folder)
    metric = job_of(arguments.seeds[0]).task.metric
    names = [f"{side}: {what}" for what in (metric, "loss", "s") for side in SIDES]
    print()
    print_header(["seed", *names])
    for seed in arguments.seeds:
        if str(seed) not in content["seeds"]:
            job = job_of(seed)
            content["steps"] = job.config.train.steps
            content["seeds"][str(seed)] = {
                "bertjax": run_bertjax(job, folder / "run"),
                "transformers": run_peer(job),
            }
            write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
        print_line([seed, *cells(content["seeds"][str(seed)])])
    entries = [content["seeds"][str(seed)] for seed in arguments.seeds]
    print(f"{metric}: {described(entries, 'score')}\nloss: {described(entries, 'loss')}")
    return 0


def cells(entry: dict[str, Any]) -> list[str]:
    """Return the figures of one seed, in the order of the table's columns."""
    texts = []
    for name, form in COLUMNS.items():
        for side in SIDES:
            texts.append(f"{entry[side][name]:{form}}")
    return texts


def described(entries: list[dict[str, Any]], name: str) -> str:
    """Return means and deviations of a figure over seeds, and how far apart the means are."""
    means, deviations, texts = [], [], []
    for side in SIDES:
        values = [entry[side][name] for entry in entries]
        means.append(statistics.mean(values))
        if len(values) > 1:
            deviations.append(statistics.stdev(values))
            texts.append(f"{side} {means[-1]:.4f} (deviation {deviations[-1]:.4f})")
    if not deviations:
        return f"{means[0]:.4f} and {means[1]:.4f}; two seeds or more would tell their deviation"
    # Of two groups of equal size: the root of the mean variance.
    pooled = math.hypot(*deviations) / math.sqrt(2)
    distance = abs(means[0] - means[1])
    less = "less" if distance < pooled or distance == 0 else "not less"
    error = pooled * math.sqrt(2 / len(entries))
    return (
        f"{', '.join(texts)}; {distance:.4f} apart, {less} than the seeds' deviation,"
        f" {pooled:.4f} (of both, pooled; the standard error of the distance is {error:.4f})"
    )


def run_bertjax(job: Job, run_dir: epath.Path) -> dict[str, float]:
    begin = time.perf_counter()
    outcome = finetune.finetune(job.config, run_dir, job.prepared, job.tokenizer)
    seconds = time.perf_counter() - begin
    check(
        not outcome.stopped,
        where="bertjax",
        found=f"a signal at step {outcome.step}",
        expected="none",
    )
    result = finetune.write_result(job.config, run_dir, outcome.evaluations, job.prepared)
    figures = result["figures"]
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
        batches = math.ceil(split.encoded.items / c.train.batch_size)
        for items in np.array_split(np.arange(split.encoded.items), batches):
            output = model(**peer_batch(job, split.encoded, items))
            loss += output.loss.item() * len(items) / split.encoded.items
            outputs.extend(probabilities(job.task, output.logits))
    figures = job.task.figures(
        job.task.predict(outputs, split.encoded, split.examples), split.examples
    )
    return {
        **figures,
        "loss": loss,
        "score": figures[job.task.metric],
        "seconds": time.perf_counter() - begin,
    }


def peer_model(job: Job) -> Any:
    """Return the model with a new head from PyTorch's generator."""
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
    """Return a function that updates the model on a batch.

    It returns the loss and the norm of the gradient before clipping.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    o = job.config.optimizer
    decayed, not_decayed = [], []
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            not_decayed.append(parameter)
        else:
            decayed.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": o.weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
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
    """Yield the items of each batch, without end, the last one of an epoch perhaps short.

    An epoch is a permutation from PyTorch's generator.
    """
    import torch

    while True:
        order = torch.randperm(items).numpy()
        for begin in range(0, items, batch_size):
            yield order[begin : begin + batch_size]


def peer_batch(job: Job, rows: Any, items: np.ndarray) -> dict[str, Any]:
    """Return the items under the names of `transformers`, padded to the longest of them."""
    length = int(item_lengths(rows, job.config.finetune.max_seq_length)[items].max())
    return as_tensors(make_batch(rows, items, length, pad_id=job.tokenizer.pad_id))


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    labels = torch.from_numpy(batch["labels"])
    tensors = {
        "input_ids": torch.from_numpy(batch["input_ids"]).long(),
        "attention_mask": torch.from_numpy(batch["input_mask"]).long(),
        "token_type_ids": torch.from_numpy(batch["segment_ids"]).long(),
        "labels": labels if labels.is_floating_point() else labels.long(),
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def probabilities(task: TextTask, logits: Any) -> np.ndarray:
    """Return what `TextTask.outputs` gives for the same logits."""
    if task.label_type == "number":
        return logits.cpu().numpy()
    return (logits.softmax(-1) if task.label_type == "class" else logits.sigmoid()).cpu().numpy()


def check_step(arguments: argparse.Namespace, folder: epath.Path) -> int:
    """Print how far both sides are apart after the same steps; return 1 if beyond `TOLERANCES`."""
    job = without_randomness(jobs(arguments, folder)(arguments.seeds[0]))
    rows, size = job.prepared.train[job.task.name], arguments.batch_size
    check(
        rows.items >= CHECKED_STEPS * size,
        where="training examples",
        found=rows.items,
        expected=f"{CHECKED_STEPS} batches of {size}",
    )
    length = int(item_lengths(rows, arguments.max_seq_length)[: CHECKED_STEPS * size].max())

    objective = finetune.objective_of(job.config, job.prepared)
    params = first_params(job, objective)
    model = peer_model(job).eval()
    first = named_tensors(job, params)
    copy_new(job, model, first)
    state = TrainState(np.int32(0), params, make_optimizer(job.config.optimizer).init(params))
    bertjax_step = jit_train_step(job.config, make_mesh(job.config.mesh), objective)
    torch_step = peer_step(job, model, CHECKED_STEPS, job.config.optimizer.warmup_steps)

    apart = {"begin": distance(first, state_of(model), first), "loss": 0.0, "grad_norm": 0.0}
    print(f"\n{CHECKED_STEPS} batches of {size} x {length}")
    print(f"parameters at first: {apart['begin']:.1e} apart")
    columns = ("loss: bertjax", "transformers", "gradient norm: bertjax", "transformers")
    print_header(["step", *columns])
    for number in range(CHECKED_STEPS):
        items = np.arange(number * size, (number + 1) * size)
        batch = make_batch(rows, items, length, pad_id=job.tokenizer.pad_id, task=job.task.name)
        state, metrics = bertjax_step(state, batch)
        plain = {name.rpartition("/")[2]: values for name, values in batch.items()}
        loss, grad_norm = torch_step(as_tensors(plain))
        figures = []
        for name, value in (("loss", loss), ("grad_norm", grad_norm)):
            other = float(metrics[name])
            apart[name] = max(apart[name], abs(other - value) / abs(value))
            figures += [f"{other:.7f}", f"{value:.7f}"]
        print_line([number + 1, *figures])
    compare_parameters(first, named_tensors(job, state.params), state_of(model), apart)
    agree = apart["begin"] == 0
    for name, limit in TOLERANCES.items():
        agree = agree and apart[name] <= limit
    print("they agree" if agree else f"they differ: expected at most {TOLERANCES}")
    return 0 if agree else 1


def compare_parameters(
    first: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    peer: dict[str, np.ndarray],
    apart: dict[str, float],
) -> None:
    """Add the distances of the parameters to those in `apart`, and print all."""
    change = {name: after[name] - first[name] for name in after}
    apart["params"] = distance(after, peer, after)
    apart["change"] = distance(after, peer, change)
    largest = max(float(np.abs(after[name] - peer[name]).max()) for name in after)
    print(
        f"apart, relative: loss {apart['loss']:.1e}, gradient norm {apart['grad_norm']:.1e};"
        f" after {CHECKED_STEPS} steps parameters {apart['params']:.1e} of their norm,"
        f" {apart['change']:.1e} of their change, at most {largest:.1e}"
    )


def without_randomness(job: Job) -> Job:
    """Return the job without dropout, for `CHECKED_STEPS` steps, all at a rate above 0.

    The rate falls from `CHECKED_RATE`: a warmup would begin with a step of rate 0.
    """
    config = job.config.replace(
        model={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        optimizer={"warmup_steps": 0, "peak_learning_rate": CHECKED_RATE},
        train={"steps": CHECKED_STEPS},
    )
    return job._replace(config=config)


def first_params(job: Job, objective: Any) -> dict[str, Any]:
    """Return the parameters of the model, with new ones for the groups that it does not have."""
    new = objective.init(jax.random.key(job.config.seed))
    kept = {}
    for group, leaves in load_model(job.config.init_from).params.items():
        if group in new and group not in job.config.new_heads:
            kept[group] = leaves
    return dict(objective.initial_params(new, kept))


def named_tensors(job: Job, params: Any) -> dict[str, np.ndarray]:
    """Return copies of the parameters under PyTorch's names."""
    head = params[TASKS][job.task.name]
    encoder = {group: leaves for group, leaves in params.items() if group != TASKS}
    tensors = {
        name: np.array(values) for name, values in export_tensors(encoder, torch_dialect("bert"))
    }
    tensors["classifier.weight"] = np.array(head["kernel"]).T
    tensors["classifier.bias"] = np.array(head["bias"])
    return tensors


def copy_new(job: Job, model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Copy the head to PyTorch's model, and the pooler if MODEL_FOLDER has none.

    The model has read the rest by itself.
    """
    import torch

    new_heads = [f"bert.{head}." for head in job.config.new_heads]
    new = {}
    for name, values in tensors.items():
        if name.startswith(("classifier.", *new_heads)):
            new[name] = torch.tensor(values)
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
    """Return the norm of a - b over the norm of `scale`, over all tensors, whose names agree."""
    assert a.keys() == b.keys() == scale.keys(), set(a) ^ set(b)
    difference_squares = sum(squares(a[name] - b[name]) for name in a)
    scale_squares = sum(squares(values) for values in scale.values())
    return math.sqrt(difference_squares / scale_squares)


def squares(values: np.ndarray) -> float:
    # In float64: the sum has millions of terms.
    return float((values.astype(np.float64) ** 2).sum())


if __name__ == "__main__":
    sys.exit(main())
