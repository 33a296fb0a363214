"""`python -m tests.multihost.driver SPEC.json`: one process of a run on made-up batches, without
TensorFlow.

SPEC: `run`, `changes` to the small configuration, `faults` by process (`{"1": {"step": 3, "what":
"user"}}`), `seconds` a batch takes to make.
"""

import itertools
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from bertjax.errors import UserError
from bertjax.parallel import failures, hosts
from tests.factory import random_batch, small_config


def batches(spec, start, rows, size):
    import jax

    fault = spec.get("faults", {}).get(str(jax.process_index()), {})
    for step in itertools.count(start):
        time.sleep(spec.get("seconds", 0))
        if fault.get("step") == step:
            if fault["what"] == "user":
                raise UserError("shard.tfrecord: record 7 is damaged")
            if fault["what"] == "bug":
                raise AssertionError("a bug of ours")
            if fault["what"] == "waits":
                time.sleep(600)
            os.kill(os.getpid(), getattr(signal, fault["what"]))
        yield {
            name: values[rows]
            for name, values in random_batch(np.random.default_rng(1000 + step), size).items()
        }


def heldout(rows, most):
    """Two batches and a part of a third, filled up with zeros."""
    whole = random_batch(np.random.default_rng(7), 19)
    for number in range(3):
        wanted = np.arange(number * 8, number * 8 + 8)[rows]
        yield {
            name: np.stack([x[i] if i < 19 else np.zeros_like(x[0]) for i in wanted])
            for name, x in whole.items()
        }


def check_rows_that_are_no_neighbours():
    """A batch over devices in an order that gives each process every other part of it."""
    import jax

    from bertjax.parallel.mesh import make_mesh

    devices = sorted(jax.devices(), key=lambda device: (device.id % 2, device.process_index))
    mesh = make_mesh(small_config(mesh={"data": -1}).mesh, devices)
    mine = hosts.process_row_indices(mesh, 16)
    assert len(mine) == 16 // jax.process_count()
    assert np.any(np.diff(mine) > 1), mine
    whole = np.arange(48).reshape(16, 3)
    made = hosts.global_batch(mesh, {"x": whole[mine]}, 16)["x"]
    for shard in made.addressable_shards:
        assert np.array_equal(shard.data, whole[shard.index]), shard
    print("rows in place")


def main(spec):
    from bertjax.training.batch_source import BatchSource
    from bertjax.training.evaluate import heldout_evaluator
    from bertjax.training.loop import train

    with failures.end_together():
        if spec.get("rows"):
            check_rows_that_are_no_neighbours()
            return 0
        config = small_config(**spec.get("changes", {}))
        source = BatchSource(
            train=lambda start, rows: batches(spec, start, rows, config.train.batch_size),
            make_evaluator=partial(heldout_evaluator, {"all": heldout}),
        )
        outcome = train(config, spec["run"], source)
        print(f"outcome {outcome.step} {outcome.stopped} first {hosts.is_first()}")
    return 75 if outcome.stopped else 0


if __name__ == "__main__":
    # tensorboardX would import it, which takes seconds
    sys.modules["torch"] = None  # type: ignore[assignment]
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
