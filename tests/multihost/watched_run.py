"""`python -m tests.multihost.watched_run CONFIG.json RUN FOLDER [STEP]`: one process of a training
run whose batches are written as the step has them, with masks: `FOLDER/STEP.npz`.

With STEP, process 1 is killed when the update to this step is made and its checkpoint is whole.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from bertjax.parallel import failures, hosts
from tests.waiting import until

PREFIX = "batch/"


def watch(folder, killed_at, run):
    """Make the step give its batch too, which the first process writes."""
    import jax

    from bertjax.training.pretraining import Pretraining
    from bertjax.training.step import programs

    prepare, step = Pretraining.prepare, programs.train_step
    call = programs.JittedTrainStep.__call__
    prepared = {}

    def prepare_and_keep(self, batch, key, place=0):
        made = prepare(self, batch, key, place)
        prepared.update({PREFIX + name: values for name, values in made.items()})
        return made

    def step_with_batch(*arguments):
        prepared.clear()
        state, metrics = step(*arguments)
        return state, metrics | prepared

    def called(self, state, batch, place=None):
        begin = int(state.step)
        if killed_at and begin == killed_at and jax.process_index() == 1:
            checkpoint = Path(run) / "checkpoints" / str(begin)
            until(checkpoint.exists, expected="the checkpoint of the boundary is whole")
            os.kill(os.getpid(), signal.SIGKILL)
        state, results = call(self, state, batch, place)
        arrays = {name: results.pop(name) for name in list(results) if name.startswith(PREFIX)}
        if hosts.is_first():
            # All processes have the whole arrays, as they have the metrics.
            values = {
                name.removeprefix(PREFIX): np.asarray(array.addressable_data(0))
                for name, array in arrays.items()
            }
            np.savez(folder / f"{begin}.npz", **values)
        return state, results

    Pretraining.prepare = prepare_and_keep
    programs.train_step = step_with_batch
    programs.JittedTrainStep.__call__ = called


def main(config, run, folder, killed_at=0):
    import bertjax

    with failures.end_together():
        watch(folder, killed_at, run)
        result = bertjax.train(bertjax.load_config(config), run)
        print(f"outcome {result.step} {result.stopped}")
    return 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(words[0], words[1], Path(words[2]), *map(int, words[3:])))
