"""One class a runtime: it opens an exported folder and computes its outputs.

These run in the process of a runtime (`worker.py`), so each imports its own library alone.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

INPUTS = ("input_ids", "input_mask", "segment_ids")
"""Names of the inputs, as exported programs have them (`interop.programs.serving`)."""

Arrays = Mapping[str, np.ndarray]


class Program(Protocol):
    """A folder that a runtime has opened."""

    version: str
    """The runtime with its version, such as `onnxruntime 1.32.0`."""
    outputs: tuple[str, ...]
    """Names of the outputs that it can compute."""

    def run(self, inputs: Arrays, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the outputs for int32 [b, l] arrays named `INPUTS`."""
        ...


class OnnxProgram:
    """`model.onnx`, in ONNX Runtime on the CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Open the file; raises an error of ONNX Runtime for what it refuses."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Messages of errors come as exceptions too.
        options.log_severity_level = 4
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def run(self, inputs: Arrays, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the outputs."""
        values = self._session.run(outputs, {name: inputs[name] for name in self._inputs})
        return dict(zip(outputs, values, strict=True))


class TransformersProgram:
    """A folder of `transformers`, in the class that its `config.json` names, in PyTorch."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the weights; raises an error of `transformers` for what it refuses."""
        import torch
        import transformers

        torch.set_num_threads(threads)
        config = transformers.AutoConfig.from_pretrained(folder)
        name = (config.architectures or ["AutoModel"])[0]
        kind = getattr(transformers, name)
        loaded = kind.from_pretrained(folder, output_loading_info=True, dtype="auto")
        self._model, facts = loaded
        # An encoder alone may come without a pooler, for which `transformers` makes random weights.
        is_bare = not name.rpartition("For")[1]
        missing = sorted(facts["missing_keys"])
        no_pooler = is_bare and any(key.startswith("pooler.") for key in missing)
        if no_pooler:
            missing = [key for key in missing if not key.startswith("pooler.")]
        # It does so for whatever a file lacks, and only warns.
        if missing:
            raise ValueError(f"no weights for {', '.join(missing[:3])}")
        self._model.eval()
        self._torch, self._is_bare = torch, is_bare
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self._with_types = (getattr(config, "type_vocab_size", 0) or 0) > 1
        self.outputs: tuple[str, ...]
        if is_bare:
            self.outputs = ("hidden",) if no_pooler else ("hidden", "pooled")
        elif name.endswith(("ForMaskedLM", "ForPreTraining")):
            self.outputs = ("hidden", "mlm_logits")
        else:
            self.outputs = ("hidden", "logits")

    def run(self, inputs: Arrays, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the outputs."""
        torch = self._torch
        given = {
            "input_ids": torch.from_numpy(inputs["input_ids"].astype(np.int64)),
            "attention_mask": torch.from_numpy(inputs["input_mask"].astype(np.int64)),
        }
        if self._with_types:
            given["token_type_ids"] = torch.from_numpy(inputs["segment_ids"].astype(np.int64))
        hidden_states = "hidden" in outputs and not self._is_bare
        with torch.inference_mode():
            result = self._model(**given, output_hidden_states=hidden_states)
        values = {}
        for name in outputs:
            values[name] = self._output(result, name).float().numpy()
        return values

    def _output(self, result: Any, name: str) -> Any:
        if name == "hidden":
            return result.last_hidden_state if self._is_bare else result.hidden_states[-1]
        if name == "pooled":
            return result.pooler_output
        if name == "mlm_logits" and hasattr(result, "prediction_logits"):
            return result.prediction_logits
        if name == "logits" and hasattr(result, "start_logits"):
            return self._torch.stack([result.start_logits, result.end_logits], -1)
        return result.logits


class StablehloProgram:
    """`model.stablehlo` with its `params.npz`, by `jax.export` on the CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Read the program and its parameters."""
        import jax
        from jax import export

        signature = json.loads((folder / "signature.json").read_text())
        content = (folder / signature["program"]).read_bytes()
        exported = export.deserialize(bytearray(content))
        with np.load(folder / signature["params"], allow_pickle=False) as arrays:
            self._params = jax.device_put(dict(arrays))
        self._call = jax.jit(exported.call)
        # XLA takes the number of threads from the environment: see `worker.py`.
        self.version = f"jax {jax.__version__}"
        self.outputs = tuple(each["name"] for each in signature["outputs"])

    def run(self, inputs: Arrays, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the outputs."""
        values = self._call(self._params, *(inputs[name] for name in INPUTS))
        return {name: np.asarray(values[name]) for name in outputs}


class StaticProgram:
    """A table of word vectors, by NumPy."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Read the table."""
        from bertjax.inference.static_table import read_static_table

        self._table = read_static_table(folder)
        self.version = f"numpy {np.__version__}"
        self.outputs: tuple[str, ...] = ("vectors",)

    def run(self, inputs: Arrays, outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the vector of each row."""
        real = inputs["input_mask"] > 0
        offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
        vectors = self._table.text_vectors(inputs["input_ids"][real], offsets)
        return dict.fromkeys(outputs, vectors)


PROGRAMS: Mapping[str, Callable[[Path, int], Program]] = {
    "onnx": OnnxProgram,
    "transformers": TransformersProgram,
    "stablehlo": StablehloProgram,
    "static": StaticProgram,
}
