"""What other programs call the tensors of `docs/parameters.md`: a table an architecture, a few
rules a format.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_BERT_LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
    "mlp_layer_norm": "output.LayerNorm",
}
_ALBERT_LAYER = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/output": "attention.dense",
    "attention_layer_norm": "attention.LayerNorm",
    "mlp/up": "ffn",
    "mlp/down": "ffn_output",
    "mlp_layer_norm": "full_layer_layer_norm",
}
_EMBEDDINGS = {
    "embeddings/word": "embeddings.word_embeddings",
    "embeddings/position": "embeddings.position_embeddings",
    "embeddings/token_type": "embeddings.token_type_embeddings",
    "embeddings/layer_norm": "embeddings.LayerNorm",
}


def _architecture(
    base: str, place: str, layer: Mapping[str, str], inside: Mapping[str, str]
) -> dict[str, str]:
    """Modules of ours and of theirs; `{}` in `place` counts layers, `base` goes before all but the
    heads.
    """
    layers = {f"encoder/layers/{ours}": f"{place}.{theirs}" for ours, theirs in layer.items()}
    return {
        ours: f"{base}.{theirs}" for ours, theirs in (_EMBEDDINGS | layers | dict(inside)).items()
    }


TASK_HEAD = "task_head"  # of the parameters that are exported, the group of a task's head

MODULES: dict[str, dict[str, str]] = {
    "bert": _architecture("bert", "encoder.layer.{}", _BERT_LAYER, {"pooler": "pooler.dense"})
    | {
        "mlm": "cls.predictions",
        "mlm/transform": "cls.predictions.transform.dense",
        "mlm/layer_norm": "cls.predictions.transform.LayerNorm",
        "nsp": "cls.seq_relationship",
    },
    "roberta": _architecture("roberta", "encoder.layer.{}", _BERT_LAYER, {"pooler": "pooler.dense"})
    | {"mlm": "lm_head", "mlm/transform": "lm_head.dense", "mlm/layer_norm": "lm_head.layer_norm"},
    "electra": _architecture(
        "electra", "encoder.layer.{}", _BERT_LAYER, {"embeddings/projection": "embeddings_project"}
    )
    | {
        "mlm": "generator_lm_head",
        "mlm/transform": "generator_predictions.dense",
        "mlm/layer_norm": "generator_predictions.LayerNorm",
    },
    "albert": _architecture(
        "albert",
        "encoder.albert_layer_groups.0.albert_layers.0",
        _ALBERT_LAYER,
        {"embeddings/projection": "encoder.embedding_hidden_mapping_in", "pooler": "pooler"},
    )
    | {
        "mlm": "predictions",
        "mlm/transform": "predictions.dense",
        "mlm/layer_norm": "predictions.LayerNorm",
        "nsp": "sop_classifier.classifier",
    },
}

# Copies of a parameter that stands under another name too: theirs -> ours.
_COPIES = {
    "bert": {
        "cls.predictions.decoder.weight": "embeddings/word/embedding",
        "cls.predictions.decoder.bias": "mlm/bias",
    },
    "roberta": {
        "lm_head.decoder.weight": "embeddings/word/embedding",
        "lm_head.decoder.bias": "mlm/bias",
    },
    "electra": {"generator_lm_head.weight": "embeddings/word/embedding"},
    "albert": {
        "predictions.decoder.weight": "embeddings/word/embedding",
        "predictions.decoder.bias": "mlm/bias",
    },
}


@dataclass(frozen=True)
class Dialect:
    """How one format names and lays out one architecture's tensors."""

    architecture: str
    """A key of `MODULES`."""
    base: str
    """What goes before the encoder's names, and is left out where a file holds the encoder alone."""
    name: Callable[[str], str]
    """Our path to their name, `{}` in it counting layers."""
    transposed: frozenset[str] | None
    """Our paths whose matrix they keep as [out, in]; None: all kernels."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Their names of second copies of a tensor, and our path of the first."""
    ignored: Callable[[str], bool] = lambda name: False
    """Their names that are no parameters: counters, the optimizer's moments."""

    def has(self, path: str) -> bool:
        """Whether the architecture has a tensor for our `path`."""
        return path.rpartition("/")[0] in MODULES[self.architecture]

    def is_transposed(self, path: str) -> bool:
        """Whether they keep the matrix of our `path` the other way round."""
        return path.endswith("/kernel") if self.transposed is None else path in self.transposed


def _module(modules: Mapping[str, str], path: str) -> tuple[str, str]:
    module, _, leaf = path.rpartition("/")
    return modules[module], leaf


def torch_dialect(architecture: str, task_class: str = "") -> Dialect:
    """The names of PyTorch checkpoints of `transformers`.

    With a `task_class` such as SequenceClassification they include its head.
    """
    head = "qa_outputs" if task_class == "QuestionAnswering" else "classifier"
    modules = MODULES[architecture] | {TASK_HEAD: head}
    if (architecture, task_class) == ("roberta", "SequenceClassification"):
        # Only this class has the pooler's layer inside the head.
        modules |= {"pooler": "classifier.dense", TASK_HEAD: "classifier.out_proj"}

    def name(path: str) -> str:
        module, leaf = _module(modules, path)
        return f"{module}.bias" if leaf == "bias" else f"{module}.weight"

    return Dialect(
        architecture,
        base=f"{architecture}.",
        name=name,
        transposed=None,
        copies=_COPIES[architecture],
        ignored=lambda name: name.endswith(
            ("embeddings.position_ids", "embeddings.token_type_ids")
        ),
    )


def flax_dialect(architecture: str) -> Dialect:
    """The names of `flax_model.msgpack` of `transformers` 4, joined by `/`."""

    def name(path: str) -> str:
        module, leaf = _module(MODULES[architecture], path)
        return f"{module.replace('.', '/')}/{leaf}"

    return Dialect(architecture, base=f"{architecture}/", name=name, transposed=frozenset())


_TENSORFLOW = {
    "mlm/bias": "cls/predictions/output_bias",
    "nsp/kernel": "cls/seq_relationship/output_weights",
    "nsp/bias": "cls/seq_relationship/output_bias",
}
_OPTIMIZER = ("/adam_m", "/adam_v", "global_step")


def tensorflow_dialect() -> Dialect:
    """The names of the original BERT's TensorFlow checkpoints."""

    def name(path: str) -> str:
        if path in _TENSORFLOW:
            return _TENSORFLOW[path]
        module, leaf = _module(MODULES["bert"], path)
        module = module.replace("layer.{}", "layer_{}").replace(".", "/")
        if leaf == "embedding":
            return module
        if module.endswith("LayerNorm"):
            leaf = {"scale": "gamma", "bias": "beta"}[leaf]
        return f"{module}/{leaf}"

    return Dialect(
        "bert",
        base="bert/",
        name=name,
        transposed=frozenset({"nsp/kernel"}),
        ignored=lambda name: name.endswith(_OPTIMIZER),
    )
