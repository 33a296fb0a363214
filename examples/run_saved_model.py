"""Run an exported SavedModel in TensorFlow by its serving signature, as TensorFlow Serving does.

    bertjax export runs/topics --format saved-model --to exported/1
    pip install tensorflow tokenizers
    python examples/run_saved_model.py exported/1 "A first text." "A second one."

It prints the label of each text and its probability. Of a model that is not fine-tuned it prints
the first numbers of each text's vector.

TensorFlow Serving (https://www.tensorflow.org/tfx/serving/docker) reads a folder of versions, each
named by its number. So the folder `exported` with the version `1` is served by

    docker run -p 8501:8501 -v "$PWD/exported:/models/topics" -e MODEL_NAME=topics \\
        tensorflow/serving

and with `--request` this program prints the body that its REST interface takes:

    python examples/run_saved_model.py exported/1 --request "A first text." > request.json
    curl -d @request.json http://localhost:8501/v1/models/topics:predict

The texts become ids on the side of the client: the server has arrays alone.
"""

import json
import sys

from exported_folder import model_inputs, print_answers

SIGNATURE = "serving_default"


def request(inputs):
    """Return the body of a request to `:predict`, in the form by columns."""
    arrays = {name: array.tolist() for name, array in inputs.items()}
    return json.dumps({"signature_name": SIGNATURE, "inputs": arrays})


def main(folder, words):
    texts = [word for word in words if word != "--request"]
    inputs = model_inputs(folder, texts)
    if "--request" in words:
        print(request(inputs))
        return
    # Here, since a request needs no TensorFlow.
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    serve = loaded.signatures[SIGNATURE]
    outputs = serve(**{name: tf.constant(array) for name, array in inputs.items()})
    print_answers(folder, texts, inputs, outputs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
