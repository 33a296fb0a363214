"""Run an exported model in ONNX Runtime, without JAX.

    bertjax export runs/topics --format onnx --to exported
    pip install onnxruntime tokenizers
    python examples/run_onnx.py exported "A first text." "A second one."

It prints the label of each text and its probability. Of a model that is not fine-tuned it prints
the first numbers of each text's vector.
"""

import sys
from pathlib import Path

import onnxruntime
from exported_folder import model_inputs, print_answers


def main(folder, texts):
    session = onnxruntime.InferenceSession(
        str(Path(folder, "model.onnx")), providers=["CPUExecutionProvider"]
    )
    inputs = model_inputs(folder, texts)
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, inputs)
    print_answers(folder, texts, inputs, dict(zip(names, arrays, strict=True)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
