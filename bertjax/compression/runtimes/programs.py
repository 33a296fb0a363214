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

    def prepare(self, inputs: Arrays) -> Any:
        """Return int32 [b, l] arrays named `INPUTS` as the runtime takes them; it is not timed."""
        ...

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the outputs, as the runtime has them, for what `prepare` returned."""
        ...

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return what `run` returned as float32 arrays."""
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

    def prepare(self, inputs: Arrays) -> Any:
        """Return those inputs that the graph reads."""
        return {name: inputs[name] for name in self._inputs}

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the outputs."""
        return dict(zip(outputs, self._session.run(outputs, prepared), strict=True))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the outputs as they are."""
        return dict(values)


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

    def prepare(self, inputs: Arrays) -> Any:
        """Return the inputs as tensors of int64, by the names of `transformers`."""
        torch = self._torch
        given = {
            "input_ids": torch.from_numpy(inputs["input_ids"].astype(np.int64)),
            "attention_mask": torch.from_numpy(inputs["input_mask"].astype(np.int64)),
        }
        if self._with_types:
            given["token_type_ids"] = torch.from_numpy(inputs["segment_ids"].astype(np.int64))
        return given

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the outputs as tensors."""
        hidden_states = "hidden" in outputs and not self._is_bare
        with self._torch.inference_mode():
            result = self._model(**prepared, output_hidden_states=hidden_states)
        return {name: self._output(result, name) for name in outputs}

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return tensors as arrays."""
        return {name: value.float().numpy() for name, value in values.items()}

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
        self.stored = {name: (str(x.dtype), x.nbytes) for name, x in self._params.items()}
        """Element type and bytes of each parameter."""
        self._call = jax.jit(exported.call)
        # XLA takes the number of threads from the environment: see `worker.py`.
        self.version = f"jax {jax.__version__}"
        self.outputs = tuple(each["name"] for each in signature["outputs"])

    def prepare(self, inputs: Arrays) -> Any:
        """Return the inputs in the order of the program."""
        return [inputs[name] for name in INPUTS]

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the outputs, computed to their end."""
        values = self._call(self._params, *prepared)
        return {name: values[name].block_until_ready() for name in outputs}

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return JAX's arrays as NumPy's."""
        return {name: np.asarray(value) for name, value in values.items()}


class PipelineProgram(TransformersProgram):
    """A folder of `transformers` as its users call it: a pipeline from texts to answers.

    Beside the model it has the tokenizer, and what the pipeline makes of the outputs. It has no
    outputs as arrays: it is for latency alone.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the model and the tokenizer, and find words of one token."""
        super().__init__(folder, threads)
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        # By the outputs: the classes of tasks have names of pipelines, an encoder has none.
        name = type(self._model).__name__.rpartition("For")[2]
        task = _PIPELINES.get(name, "feature-extraction")
        # Its type lists hundreds of forms, one for each kind of pipeline.
        make_pipeline: Any = transformers.pipeline
        self._pipeline = make_pipeline(task, model=self._model, tokenizer=tokenizer)
        self._specials = tokenizer.num_special_tokens_to_add()
        words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.islower()]
        single = [word for word in sorted(words) if len(tokenizer.tokenize(word)) == 1]
        self._words = single[:1000]
        self.outputs = (*self.outputs, "answers")

    def prepare(self, inputs: Arrays) -> Any:
        """Return texts that become as many tokens as the rows have."""
        rows, length = inputs["input_ids"].shape
        count = max(1, length - self._specials)
        texts = []
        for row in range(rows):
            chosen = [self._words[(row + place) % len(self._words)] for place in range(count)]
            texts.append(" ".join(chosen))
        return texts

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the answers of the pipeline."""
        return {"answers": self._pipeline(prepared, batch_size=len(prepared))}


_PIPELINES = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
}
"""The pipelines of `transformers` for the ends of the names of its classes."""


class StaticProgram:
    """A table of word vectors, by NumPy."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Read the table."""
        from bertjax.inference.static_table import read_static_table

        self._table = read_static_table(folder)
        self.version = f"numpy {np.__version__}"
        self.outputs: tuple[str, ...] = ("vectors",)

    def prepare(self, inputs: Arrays) -> Any:
        """Return the ids of all rows without their padding, and where each row begins."""
        real = inputs["input_mask"] > 0
        offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
        return inputs["input_ids"][real], offsets

    def run(self, prepared: Any, outputs: list[str]) -> Mapping[str, Any]:
        """Return the vector of each row."""
        return dict.fromkeys(outputs, self._table.text_vectors(*prepared))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the vectors as they are."""
        return dict(values)


PROGRAMS: Mapping[str, Callable[[Path, int], Program]] = {
    "onnx": OnnxProgram,
    "transformers": TransformersProgram,
    "pipeline": PipelineProgram,
    "stablehlo": StablehloProgram,
    "static": StaticProgram,
}
