"""The optimizer of a run: clipping, an algorithm, weight decay, and factors of layers."""

import optax

from bertjax.config import OptimizerConfig
from bertjax.training.optimization.algorithms.table import ALGORITHMS
from bertjax.training.optimization.algorithms.tensors import decay_mask
from bertjax.training.optimization.freezing import scale_steps
from bertjax.training.optimization.mixout import keep_first_values
from bertjax.training.optimization.weight_average import average_weights


def make_optimizer(
    config: OptimizerConfig, ema_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Return gradient clipping and `config.algorithm` at learning rate 1.

    The train step itself multiplies by the learning rate, so that the rate depends only on the
    step, even after an update was skipped. `update` may take `rate` and `hessian_diagonal`, which
    some algorithms need. With `ema_decay` the average of the weights is in its state.
    """
    # Clipping comes before the moments, as in the original BERT. Weight decay comes after them,
    # decoupled from the gradient as in AdamW (arXiv 1711.05101). The scales of layers come last and
    # multiply the decay too, so a frozen parameter does not decay. The number of members and their
    # order are in the names of checkpoints' arrays, so each place is filled.
    algorithm = ALGORITHMS[config.algorithm]
    clip = decay = after_decay = optax.identity()
    if config.max_grad_norm:
        clip = optax.clip_by_global_norm(config.max_grad_norm)
    if not algorithm.decays:
        decay = optax.add_decayed_weights(config.weight_decay, decay_mask)
    if algorithm.after_decay:
        after_decay = algorithm.after_decay(config)
    chain = optax.chain(
        clip,
        algorithm.step(config),
        decay,
        after_decay,
        scale_steps(config),
        # The sign makes steps point downhill: the train step adds the rate times the step.
        optax.scale(-1.0),
        keep_first_values(config.mixout),
    )
    if algorithm.around:
        chain = algorithm.around(chain, config)
    whole = optax.with_extra_args_support(chain)
    return average_weights(whole, ema_decay) if ema_decay else whole
