"""A training step: its state, its gradients, the update, and the programs compiled for it."""

from bertjax.training.step.gradients import (
    batches_in,
    check_batch,
    gradient_noise,
    gradients,
    rows_in,
)
from bertjax.training.step.programs import (
    InitPrograms,
    JittedTrainStep,
    jit_eval_step,
    jit_init,
    jit_train_step,
    lower_train_step,
)
from bertjax.training.step.state import (
    DROPOUT,
    HESSIAN,
    INIT,
    MASKS,
    MIXOUT,
    TrainState,
    abstract_state,
    init_state,
    random_key,
    state_shardings,
)
from bertjax.training.step.update import train_step

__all__ = [
    "DROPOUT",
    "HESSIAN",
    "INIT",
    "MASKS",
    "MIXOUT",
    "InitPrograms",
    "JittedTrainStep",
    "TrainState",
    "abstract_state",
    "batches_in",
    "check_batch",
    "gradient_noise",
    "gradients",
    "init_state",
    "jit_eval_step",
    "jit_init",
    "jit_train_step",
    "lower_train_step",
    "random_key",
    "rows_in",
    "state_shardings",
    "train_step",
]
