"""Training step of bertjax, bare or in its loop, and matrix products, for `benchmarks/step.py`."""

import dataclasses
import itertools
import queue
import tempfile
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from worker import Job, Step, serve

from bertjax.cli import huge_pages
from bertjax.config import Config, DataConfig, MeshConfig, OptimizerConfig, TrainConfig, family
from bertjax.estimate.abstract_batch import abstract_batch
from bertjax.estimate.cost.model_flops import model_flops
from bertjax.parallel.mesh import make_mesh
from bertjax.training import loop
from bertjax.training.batch_source import BatchSource
from bertjax.training.pretraining import pretraining
from bertjax.training.step import jit_init, jit_train_step

LOG_EVERY_STEPS = 10


# The preset's dropout is that of ModernBERT's training; its class in `transformers` has no rate of
# its own for this place.
CHANGES = {"modernbert": {"hidden_dropout_prob": 0.0}}


def config_of(job: Job) -> Config:
    is_bert = job["family"] == "bert"
    model = family(
        job["family"],
        **job["model"],
        **CHANGES.get(job["family"], {}),
        dtype=job["dtype"],
        scan_unroll=job["model"]["num_hidden_layers"],
        dropout_bits="hash",
        max_position_embeddings=max(512, job["length"]),
    )
    return Config(
        model=dataclasses.replace(model, **job["options"]),
        data=DataConfig(
            max_seq_length=job["length"],
            max_predictions_per_seq=job["predictions"],
            sentence_objective="next_sentence" if is_bert else "none",
        ),
        optimizer=OptimizerConfig(warmup_steps=10_000),
        train=TrainConfig(steps=1_000_000, batch_size=job["batch_size"]),
        mesh=MeshConfig(),
    )


def training(job: Job) -> Step:
    config = config_of(job)
    mesh, objective = make_mesh(config.mesh, jax.devices()[:1]), pretraining(config)
    shapes = abstract_batch(config, mesh)
    given = np.load(job["batch"])
    batch = {
        name: jax.device_put(given[name].astype(leaf.dtype).reshape(leaf.shape), leaf.sharding)
        for name, leaf in shapes.items()
    }
    state = jit_init(config, mesh, objective).state()
    step = jit_train_step(config, mesh, objective)

    def run(count: int) -> float:
        nonlocal state
        for _ in range(count):
            state, metrics = step(state, batch)
        return float(metrics["loss"])

    about = {
        "flops": model_flops(config).total,
        "device": jax.devices()[0].device_kind,
        "with": f"jax {jax.__version__}",
    }
    return Step(run, peak_bytes, about)


def looped(job: Job) -> Step:
    """Return the step within `bertjax.training.loop.train`, with its log, metrics and checks.

    The batch is the same, as NumPy arrays. The loop waits for the device every `LOG_EVERY_STEPS`
    steps only, so it takes that many at a time.
    """
    config = config_of(job)
    train = dataclasses.replace(
        config.train,
        log_every_steps=LOG_EVERY_STEPS,
        save_every_steps=10**9,
        eval_every_steps=10**9,
    )
    config = dataclasses.replace(config, train=train, mesh=MeshConfig(data=1))
    names = abstract_batch(config, make_mesh(config.mesh, jax.devices()[:1]))
    given = np.load(job["batch"])
    batch = {
        name: given[name].astype(leaf.dtype).reshape(leaf.shape) for name, leaf in names.items()
    }
    requested: queue.Queue[int] = queue.Queue()
    done: queue.Queue[int | BaseException] = queue.Queue()

    def batches(start: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        of_process = {name: values[rows] for name, values in batch.items()}
        while True:
            yield from itertools.repeat(of_process, requested.get())

    def work() -> None:
        try:
            loop.train(
                config,
                tempfile.mkdtemp(),
                BatchSource(train=batches),
                progress=lambda _, step, __: done.put(step),
            )
        except BaseException as error:  # raised again where it is waited for
            done.put(error)

    threading.Thread(target=work, daemon=True).start()

    def run(count: int) -> float:
        count = max(count // LOG_EVERY_STEPS, 1) * LOG_EVERY_STEPS
        requested.put(count)
        for _ in range(count):
            step = done.get()
            if isinstance(step, BaseException):
                raise step
        return float("nan")

    return Step(run, peak_bytes, {})


def products(job: Job) -> Step:
    """Return a step that is one product of square matrices, with the last one's result."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), job["dtype"]) / np.sqrt(size).astype(
        job["dtype"]
    )
    multiply = jax.jit(jnp.matmul)

    def run(count: int) -> float:
        y = x
        for _ in range(count):
            y = multiply(x, y)
        return float(y[0, 0])

    return Step(run, peak_bytes, {"flops": 2 * size**3})


def peak_bytes() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    serve(
        lambda job: {"training": training, "loop": looped, "products": products}[job["kind"]](job)
    )
