"""Compile time of a train step with its layers as a loop, and with its layers written out.

    python benchmarks/compile_time.py fast/large --topology v5e:2x2
    python benchmarks/compile_time.py large

Compiles for one chip of a slice, which need not be there, or for this machine's first device, with
batch size 8, one program after the other in one process. Prints the ratio of the two times.
"""

import time

from reporting import argument_parser

from bertjax.estimate.hardware.slices import open_slice, prepare_environment

# Before JAX is imported, which reads the environment then.
prepare_environment()

import jax  # noqa: E402

from bertjax.config import Config, MeshConfig, load_config  # noqa: E402
from bertjax.estimate.abstract_batch import abstract_batch, abstract_vocabulary  # noqa: E402
from bertjax.parallel.mesh import make_mesh  # noqa: E402
from bertjax.training.pretraining import pretraining  # noqa: E402
from bertjax.training.step import abstract_state, lower_train_step  # noqa: E402


def compile_seconds(config: Config, device: jax.Device) -> float:
    """Return the seconds from the traced step to the compiled program."""
    mesh = make_mesh(config.mesh, [device])
    objective = pretraining(config, abstract_vocabulary(config))
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    lowered = lower_train_step(config, mesh, objective, state, batch)
    begin = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - begin


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("config", nargs="?", default="large")
    parser.add_argument("--topology", default="")
    arguments = parser.parse_args()
    devices = open_slice(arguments.topology).devices if arguments.topology else jax.devices()
    config = load_config(arguments.config).replace(mesh=MeshConfig(), train={"batch_size": 8})
    layers = config.model.num_hidden_layers
    seconds = {}
    for name, unroll in (("a loop", 1), ("written out", layers)):
        seconds[name] = compile_seconds(config.replace(model={"scan_unroll": unroll}), devices[0])
        print(f"{layers} layers, {name}: {seconds[name]:.1f} s", flush=True)
    print(f"a loop takes {seconds['a loop'] / seconds['written out']:.0%} of the time")


if __name__ == "__main__":
    main()
