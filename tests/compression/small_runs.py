"""Runs of random parameters, as pretraining and fine-tuning on small data leave them."""

import dataclasses

import jax
import numpy as np

import bertjax
from bertjax.finetuning.objective import TaskObjective
from bertjax.model import functional
from bertjax.tasks import registry
from bertjax.training.saved_model import save_model
from tests.tasks.tiny import TOKENIZER, config_of, has_good, sentences, write_splits, write_tagged


def noisy(params, size=0.2):
    """The parameters with noise: a new head of zeros would give every text the same label."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(leaf + size * rng.standard_normal(leaf.shape)), params
    )


def write_choices(folder, count=20):
    """Questions as SWAG has them, in `train.csv` and `val.csv`."""
    header = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label"
    texts = sentences(count * 5, seed=2)
    folder.mkdir(parents=True)
    lines = [header]
    for number in range(count):
        own = texts[5 * number : 5 * number + 5]
        lines.append(f"{number},v,1,{own[0]},{own[0]},the,gold,{','.join(own[1:])},{number % 4}")
    for name in ("train.csv", "val.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def task_run(folder, kinds=("classification",), **changes):
    """A run with the tasks `good`, `towns` or `swag`, one of each kind; returns its folder."""
    entries = []
    if "classification" in kinds:
        entries.append(f"good:classification={write_splits(folder / 'good', has_good)}")
    if "tagging" in kinds:
        entries.append(f"towns:tagging={write_tagged(folder / 'towns')}")
    if "choice" in kinds:
        entries.append(f"swag:choice={write_choices(folder / 'swag')}")
    config = config_of(*entries, **changes)
    tasks = tuple(opened.task for opened in registry.open_tasks(config, TOKENIZER))
    config = config.replace(train={"batch_size": 8})
    params = noisy(TaskObjective(config.model, tasks).init(jax.random.key(0)))
    facts = {"tasks": [registry.to_plain(task) for task in tasks]}
    save_model(folder / "run", config, params, TOKENIZER, facts)
    return folder / "run"


def pretrained_run(folder, config, name="run"):
    """A run of this configuration with the tokenizer of its prepared data; returns its folder."""
    tokenizer = bertjax.load_tokenizer(config.data.prepared_dir)
    params = noisy(functional.init(config.model, jax.random.key(0)))
    save_model(folder / name, config, params, tokenizer, {})
    return folder / name


def encoder_run(folder, tokenizer=TOKENIZER, outlier="", **changes):
    """A run without tasks and prepared data, as `import` makes them; returns its folder.

    `outlier` is a kernel of a layer, in which one weight becomes large.
    """
    config = config_of()
    model = dataclasses.replace(config.model, **changes)
    config = dataclasses.replace(config, model=model)
    params = noisy(functional.init(model, jax.random.key(0)))
    if outlier:
        _, _, layer, part, name, _ = outlier.split("/")
        group = params["encoder"]["layers"][part][name]
        group["kernel"] = group["kernel"].copy()
        group["kernel"][int(layer), 0, 0] = 20.0
    save_model(folder / "run", config, params, tokenizer, {})
    return folder / "run"


def write_pairs(path, count=40):
    """A file of rated pairs whose scores follow from how many words they share."""
    texts = sentences(2 * count, seed=4)
    lines = []
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        shared = len({*first.split()} & {*second.split()})
        lines.append(f"{shared}\t{first}\t{second}")
    path.write_text("\n".join(lines) + "\n")
    return path
