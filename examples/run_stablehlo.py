"""Run an exported StableHLO program by `jax.export`, on CPU, CUDA or TPU, without bertjax.

    bertjax export runs/topics --format stablehlo --to exported
    pip install jax flatbuffers tokenizers
    python examples/run_stablehlo.py exported "A first text." "A second one."

It prints the label of each text and its probability. Of a model that is not fine-tuned it prints
the first numbers of each text's vector.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from exported_folder import model_inputs, print_answers
from jax import export


def main(folder, texts):
    signature = json.loads(Path(folder, "signature.json").read_text())
    program = Path(folder, signature["program"]).read_bytes()
    exported = export.deserialize(bytearray(program))
    # The parameters are an argument: on the device once, however many shapes are compiled.
    params = jax.device_put(dict(np.load(Path(folder, signature["params"]))))
    inputs = model_inputs(folder, texts)
    arguments = [inputs[described["name"]] for described in signature["inputs"]]
    # `jit` compiles the program once for each shape of the inputs.
    outputs = jax.jit(exported.call)(params, *arguments)
    print_answers(folder, texts, inputs, outputs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
