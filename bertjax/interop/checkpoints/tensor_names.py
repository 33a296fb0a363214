"""Names that other programs give to the parameters of `docs/parameters.md`.

For each architecture a table has the names of the modules. For each format a few rules give the
rest of a name.
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
    prefix: str,
    layer_path: str,
    layer_modules: Mapping[str, str],
    other_modules: Mapping[str, str],
) -> dict[str, str]:
    """Return the encoder's modules: bertjax's path to the name in `transformers`.

    `layer_path` is the path of a layer's modules, with `{}` for the layer's number. `prefix` is the
    architecture's name, with which all names begin except those of the heads.
    """
    modules = dict(_EMBEDDINGS)
    for path, name in layer_modules.items():
        modules[f"encoder/layers/{path}"] = f"{layer_path}.{name}"
    modules |= other_modules
    return {path: f"{prefix}.{name}" for path, name in modules.items()}


TASK_HEAD = "task_head"
"""Name of the group that holds a fine-tuned task's head in exported parameters."""

MODULES: dict[str, dict[str, str]] = {
    "bert": _architecture("bert", "encoder.layer.{}", _BERT_LAYER, {"pooler": "pooler.dense"})
    | {
        "mlm": "cls.predictions",
        "mlm/transform": "cls.predictions.transform.dense",
        "mlm/layer_norm": "cls.predictions.transform.LayerNorm",
        "nsp": "cls.seq_relationship",
    },
    # RoBERTa is trained without sentence pairs (arXiv 1907.11692), so it has no head for them.
    "roberta": _architecture("roberta", "encoder.layer.{}", _BERT_LAYER, {"pooler": "pooler.dense"})
    | {"mlm": "lm_head", "mlm/transform": "lm_head.dense", "mlm/layer_norm": "lm_head.layer_norm"},
    # ELECTRA has no pooler; the masked-word head is its generator's (arXiv 2003.10555).
    "electra": _architecture(
        "electra", "encoder.layer.{}", _BERT_LAYER, {"embeddings/projection": "embeddings_project"}
    )
    | {
        "mlm": "generator_lm_head",
        "mlm/transform": "generator_predictions.dense",
        "mlm/layer_norm": "generator_predictions.LayerNorm",
    },
    # ALBERT has one group of one layer, which all layers share (arXiv 1909.11942).
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
        # This head tells the order of two sentences; it has the shape of BERT's sentence head.
        "nsp": "sop_classifier.classifier",
    },
}
"""For each architecture, from bertjax's path of a module to the module's name in `transformers`."""

# For each architecture, from the name of a tensor that is tied to a parameter to the path of this
# parameter. The pairs are those of `_tied_weights_keys` in the classes of transformers.
_COPIES = {
    "bert": {
        "cls.predictions.decoder.weight": "embeddings/word/embedding",
        "cls.predictions.decoder.bias": "mlm/bias",
    },
    "roberta": {
        "lm_head.decoder.weight": "embeddings/word/embedding",
        "lm_head.decoder.bias": "mlm/bias",
    },
    # ELECTRA's head is the decoder itself, so its bias is the parameter and not a copy.
    "electra": {"generator_lm_head.weight": "embeddings/word/embedding"},
    "albert": {
        "predictions.decoder.weight": "embeddings/word/embedding",
        "predictions.decoder.bias": "mlm/bias",
    },
}


@dataclass(frozen=True)
class Dialect:
    """Names and layouts of one architecture's tensors in one format.

    A path is bertjax's, such as `encoder/layers/mlp/up/kernel`; a name is the other format's.
    """

    architecture: str
    """A key of `MODULES`."""
    prefix: str
    """Beginning of the encoder's names; a file with only the encoder leaves it out."""
    name: Callable[[str], str]
    """Return the name of a path, with `{}` for the number of the layer."""
    transposed: frozenset[str] | None
    """Paths of the matrices that the format keeps as [out, in]; None: all kernels."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """From the name of a tied copy to the path of the parameter that it copies."""
    ignored: Callable[[str], bool] = lambda name: False
    """Return whether a tensor is not a parameter but, for example, a constant buffer."""

    def has(self, path: str) -> bool:
        """Return whether the architecture has a tensor for `path`."""
        return path.rpartition("/")[0] in MODULES[self.architecture]

    def is_transposed(self, path: str) -> bool:
        """Return whether the format keeps the matrix at `path` as [out, in]."""
        if self.transposed is None:
            return path.endswith("/kernel")
        return path in self.transposed


def _split_path(modules: Mapping[str, str], path: str) -> tuple[str, str]:
    """Return the name of the module that has the parameter `path`, and the path's last part."""
    module, _, leaf = path.rpartition("/")
    return modules[module], leaf


def torch_dialect(architecture: str, task_class: str = "") -> Dialect:
    """Return the names in PyTorch checkpoints of `transformers`, safetensors or `.bin`.

    With a `task_class` such as SequenceClassification the names include that of its head.
    """
    head = "qa_outputs" if task_class == "QuestionAnswering" else "classifier"
    modules = MODULES[architecture] | {TASK_HEAD: head}
    if (architecture, task_class) == ("roberta", "SequenceClassification"):
        # Only the head of this class has a hidden layer, which is the pooler in bertjax.
        modules |= {"pooler": "classifier.dense", TASK_HEAD: "classifier.out_proj"}

    def name(path: str) -> str:
        module, leaf = _split_path(modules, path)
        # PyTorch has one name, `weight`, for kernels, scales and tables of embeddings.
        return f"{module}.bias" if leaf == "bias" else f"{module}.weight"

    return Dialect(
        architecture,
        prefix=f"{architecture}.",
        name=name,
        transposed=None,
        copies=_COPIES[architecture],
        # Older versions saved these constant buffers beside the parameters.
        ignored=lambda name: name.endswith(
            ("embeddings.position_ids", "embeddings.token_type_ids")
        ),
    )


def flax_dialect(architecture: str) -> Dialect:
    """Return the names in `flax_model.msgpack` of `transformers` 4, joined by `/`.

    The modules have the names of PyTorch; the matrices have the layout of bertjax.
    """

    def name(path: str) -> str:
        module, leaf = _split_path(MODULES[architecture], path)
        return f"{module.replace('.', '/')}/{leaf}"

    return Dialect(architecture, prefix=f"{architecture}/", name=name, transposed=frozenset())


# Names in the original BERT that do not follow from the table of modules.
_TENSORFLOW_NAMES = {
    "mlm/bias": "cls/predictions/output_bias",
    "nsp/kernel": "cls/seq_relationship/output_weights",
    "nsp/bias": "cls/seq_relationship/output_bias",
}


def tensorflow_dialect() -> Dialect:
    """Return the names in TensorFlow checkpoints of the original BERT."""

    def name(path: str) -> str:
        if path in _TENSORFLOW_NAMES:
            return _TENSORFLOW_NAMES[path]
        module, leaf = _split_path(MODULES["bert"], path)
        module = module.replace("layer.{}", "layer_{}").replace(".", "/")
        # The original's tables are variables in the scope of the embeddings; they have no scope of
        # their own.
        if leaf == "embedding":
            return module
        if module.endswith("LayerNorm"):
            leaf = {"scale": "gamma", "bias": "beta"}[leaf]  # TensorFlow's names
        return f"{module}/{leaf}"

    return Dialect(
        "bert",
        prefix="bert/",
        name=name,
        # The original's script multiplies by the transpose of this matrix.
        transposed=frozenset({"nsp/kernel"}),
    )
