"""GPT-BERT (arXiv 2410.24159), which has no class in `transformers`.

The names and fields are those of the authors' training code, github.com/ltgoslo/gpt-bert.
"""

from dataclasses import dataclass
from typing import Any

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.family import (
    Family,
    Names,
    in_layers,
    packed,
    under,
)
from bertjax.interop.checkpoints.families.rules import COMMON, Copy, Only, Rule, Values


@dataclass(frozen=True)
class _Buckets(Rule):
    """Buckets of relative positions on each side; the middle one belongs to both."""

    name: str = "position_bucket_size"

    def read(self, values: Values) -> dict[str, Any]:
        return {"relative_positions": 2 * values.count(self.name, -1) - 1}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {self.name: (config.relative_positions + 1) // 2}


@dataclass(frozen=True)
class _MaybeTied(Rule):
    """Whether the head has the word embeddings; in files of the authors, the tensors tell."""

    def read(self, values: Values) -> dict[str, Any]:
        return {"mlm_tied": values.flag("tie_word_embeddings", True)}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {"tie_word_embeddings": config.mlm_tied}


@dataclass(frozen=True)
class _Shifted(Rule):
    """Whether a masked word is read from the state before it, as the authors' scripts train it."""

    def read(self, values: Values) -> dict[str, Any]:
        return {"mlm_shifted": values.flag("mlm_shifted", True)}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        # Their code gives the state's logits where they are: whoever reads them must know.
        return {"mlm_shifted": config.mlm_shifted}


@dataclass(frozen=True)
class _SecondName(Rule):
    """A second name of a number, which must be the same."""

    name: str
    field: str

    def check(self, values: Values, config: ModelConfig) -> None:
        number = getattr(config, self.field)
        if values.get(self.name, number) != number:
            raise values.refused(self.name, f"{number}, as {self.field}")


def _names(prefix: str, embedding: str, transformer: str, head: str) -> Names:
    """Return names; `embedding` and so on are the beginnings of the names of the parts."""
    layers = in_layers(
        f"{transformer}attention_layers.{{}}",
        {
            **packed("in_proj_qk", "attention/query", "attention/key"),
            **packed("in_proj_vg", "attention/value", "attention/gate"),
            "attention/output": "out_proj",
        },
    ) | in_layers(
        f"{transformer}mlp_layers.{{}}.mlp",
        {
            # The second half goes through the activation.
            **packed("1", "mlp/up", "mlp/gate"),
            "mlp/down": "4",
        },
    )
    words = f"{embedding}word_embedding"
    decoder = f"{head}nonlinearity.5.weight"
    return Names(
        prefix=prefix,
        modules={
            "embeddings/word": words,
            "encoder/relative_layer_norm": f"{embedding}relative_layer_norm",
            **under("", layers),
            "mlm": f"{head}nonlinearity.5",
            "mlm/transform": f"{head}nonlinearity.1",
        },
        tensors={
            "encoder/relative/embedding": f"{embedding}relative_embedding",
            "encoder/mix": f"{transformer}dwa_modules.alphas.{{}}",
            "mlm/decoder": decoder,
        },
        copies={decoder: "embeddings/word/embedding"},
        # The authors' code reads it, and does not tie it to the embeddings by itself.
        has_copies=True,
        ignored=("position_indices",),
        rows=frozenset({"encoder/mix"}),
    )


GPT_BERT = Family(
    name="gpt_bert",
    rules=(
        *COMMON,
        # Without defaults: the forms of the code have different ones.
        Copy("vocab_size", None),
        Copy("hidden_size", None),
        Copy("num_hidden_layers", None),
        Copy("num_attention_heads", None),
        Copy("intermediate_size", None),
        Copy("max_position_embeddings", None),
        Copy("layer_norm_eps", None),
        Copy("hidden_dropout_prob", 0.0),
        Copy("attention_probs_dropout_prob", 0.0),
        _Buckets(),
        _MaybeTied(),
        _Shifted(),
        _SecondName("num_layers", "num_hidden_layers"),
        Only("hidden_act", ("gelu", None)),  # of the head; that of the layers is fixed
    ),
    names=(
        _names("", "embedding.", "transformer.", "classifier."),
        # The models of the BabyLM community.
        _names("model.", "model.embedding.", "model.", "lm_head."),
    ),
    classes={"": frozenset({"mlm"})},
    tasks={},
    has_class=False,
    telling_fields=("position_bucket_size",),
    other_names=("gpt-bert",),
)
