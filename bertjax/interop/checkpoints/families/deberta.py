"""DeBERTa-v2 and -v3 (arXiv 2006.03654, arXiv 2111.09543)."""

from dataclasses import dataclass
from typing import Any

from bertjax.config import ModelConfig
from bertjax.interop.checkpoints.families.bert import BUFFERS, EMBEDDINGS
from bertjax.interop.checkpoints.families.family import (
    PLAIN_TASKS,
    Family,
    Names,
    in_layers,
    under,
)
from bertjax.interop.checkpoints.families.rules import (
    COMMON,
    Activation,
    HeadWidth,
    Only,
    Rule,
    Tied,
    Values,
    copies,
)


@dataclass(frozen=True)
class _Positions(Rule):
    """Relative positions in logarithmic buckets, and perhaps absolute ones in the embeddings."""

    def read(self, values: Values) -> dict[str, Any]:
        kinds = values.get("pos_att_type", [])
        if isinstance(kinds, str):
            kinds = [kind.strip() for kind in kinds.lower().split("|")]
        if not isinstance(kinds, list) or sorted(map(str, kinds)) != ["c2p", "p2c"]:
            raise values.refused("pos_att_type", "p2c and c2p", kinds)
        buckets = values.get("position_buckets", -1)
        if type(buckets) is not int or not 0 < buckets < 2**30:
            raise values.refused("position_buckets", "a number above 0", buckets)
        farthest = values.get("max_relative_positions", -1)
        is_shared = values.flag("share_att_key", False)
        return {
            "relative_positions": 2 * buckets,
            # -1 and 0 stand for the number of positions.
            "relative_max_distance": 0 if farthest in (-1, 0) else farthest,
            "relative_projections": "shared" if is_shared else "own",
            "positions": "learned" if values.flag("position_biased_input", True) else "none",
        }

    def check(self, values: Values, config: ModelConfig) -> None:
        least = _least_distance(config)
        if config.relative_max_distance and config.relative_max_distance < least:
            raise values.refused(
                "max_relative_positions",
                f"{least} or more, for max_position_embeddings {config.max_position_embeddings}",
            )

    def write(self, config: ModelConfig) -> dict[str, Any]:
        farthest = config.relative_max_distance
        if farthest:
            # Of one below the least the family has none: what is read again differs from `config`.
            farthest = max(farthest, _least_distance(config))
        return {
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": config.relative_positions // 2 or -1,
            "max_relative_positions": farthest or -1,
            "share_att_key": config.relative_projections == "shared",
            "position_biased_input": config.positions == "learned",
        }


def _least_distance(config: ModelConfig) -> int:
    """Return the least `max_relative_positions` with which the buckets of far distances grow.

    Distances up to half of the buckets, m, have a bucket each. The logarithm of farther ones is
    divided by log((max_relative_positions - 1) / m) in `transformers`: by 0 or less below this.
    Where no row has farther ones it is 0.
    """
    middle = config.relative_positions // 4
    return middle + 2 if config.max_position_embeddings > middle + 1 else 0


@dataclass(frozen=True)
class _Widths(Rule):
    """Widths that must be the hidden size: embeddings are projected before their norm here."""

    names: tuple[str, ...] = ("embedding_size", "pooler_hidden_size")

    def check(self, values: Values, config: ModelConfig) -> None:
        for name in self.names:
            if values.get(name, config.hidden_size) != config.hidden_size:
                raise values.refused(name, f"{config.hidden_size}, the hidden size")


_ENCODER = {
    **EMBEDDINGS,
    "encoder/relative": "encoder.rel_embeddings",
    "encoder/relative_layer_norm": "encoder.LayerNorm",
    **in_layers(
        "encoder.layer.{}",
        {
            "attention/query": "attention.self.query_proj",
            "attention/key": "attention.self.key_proj",
            "attention/value": "attention.self.value_proj",
            "attention/relative_query": "attention.self.pos_query_proj",
            "attention/relative_key": "attention.self.pos_key_proj",
            "attention/output": "attention.output.dense",
            "attention_layer_norm": "attention.output.LayerNorm",
            "mlp/up": "intermediate.dense",
            "mlp/down": "output.dense",
            "mlp_layer_norm": "output.LayerNorm",
        },
    ),
}
# Without positions in the embeddings `transformers` does not read this table either.
_IGNORED = (*BUFFERS, "embeddings.position_embeddings.weight")
_NAMES = Names(
    prefix="deberta.",
    modules={
        **under("deberta.", _ENCODER),
        "mlm": "lm_predictions.lm_head",
        "mlm/transform": "lm_predictions.lm_head.dense",
        "mlm/layer_norm": "lm_predictions.lm_head.LayerNorm",
        "pooler": "pooler.dense",
    },
    ignored=_IGNORED,
)
# As classes with the field `legacy` have it.
_LEGACY_NAMES = Names(
    prefix="deberta.",
    modules={
        **_NAMES.modules,
        "mlm": "cls.predictions",
        "mlm/transform": "cls.predictions.transform.dense",
        "mlm/layer_norm": "cls.predictions.transform.LayerNorm",
    },
    copies={
        "cls.predictions.decoder.weight": "embeddings/word/embedding",
        "cls.predictions.decoder.bias": "mlm/bias",
    },
    ignored=_IGNORED,
)

DEBERTA = Family(
    name="deberta-v2",
    rules=(
        *COMMON,
        *copies(
            vocab_size=128_100,
            hidden_size=1536,
            num_hidden_layers=24,
            num_attention_heads=24,
            intermediate_size=6144,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            max_position_embeddings=512,
            type_vocab_size=0,
            initializer_range=0.02,
            layer_norm_eps=1e-7,
        ),
        Activation("hidden_act", "gelu"),
        Activation("pooler_hidden_act", "gelu", ("pooler_act",)),
        Only("relative_attention", (True,), written=True),
        _Positions(),
        Only("norm_rel_ebd", ("layer_norm",), written=True),
        Only("conv_kernel_size", (0, None)),
        Only("z_steps", (0, 1, None)),
        # Export writes the names of the head of today; import sees by the names which one it is.
        Only("legacy", (False, True, None), written=True),
        _Widths(),
        HeadWidth("attention_head_size"),
        Tied(),
    ),
    names=(_NAMES, _LEGACY_NAMES),
    classes={"DebertaV2ForMaskedLM": frozenset({"mlm"}), "DebertaV2Model": frozenset()},
    tasks=PLAIN_TASKS,
    task_class="DebertaV2",
)
