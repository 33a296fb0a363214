"""Parameters that a run left, read back for the tests."""

import jax

from bertjax.training import checkpoint
from bertjax.training.step import init_state


def params_of(run, config):
    """The parameters of a run's last checkpoint."""
    _, folder = checkpoint.find_checkpoint(run)
    shapes = jax.eval_shape(lambda: init_state(config).params)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    return jax.device_get(checkpoint.restore_params(folder, target))
