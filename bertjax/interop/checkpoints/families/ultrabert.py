"""UltraBERT (huggingface.co/dmis-lab/UltraBERT-150M): the layers of EuroBERT, with windows."""

from bertjax.interop.checkpoints.families.bert import ENDS
from bertjax.interop.checkpoints.families.eurobert import ENCODER, LAYER_RULES
from bertjax.interop.checkpoints.families.family import PLAIN_TASKS, Family, Names, under
from bertjax.interop.checkpoints.families.rotary import RotaryWindows
from bertjax.interop.checkpoints.families.rules import (
    Biases,
    Copy,
    HeadWidth,
    Only,
    Translated,
    copies,
)

_HEAD = {"mlm/first": "head.linear1", "mlm/transform": "head.linear2", "mlm": "cls"}
_BIASES = {"attention_bias": (False, ("attention",)), "mlp_bias": (False, ("mlp", "mlp_output"))}
_WINDOWS = RotaryWindows(
    (2.56e6, 1e4),
    width=256,
    every=3,
    first=2,
    field="sliding_window",
    unit=2,
    base_in_object=1e4,
)
# The first two have a value for each layer, and the class does not read those that ModernBERT has.
_REFUSED = (
    "attention_windows",
    "rope_theta",
    "rope_scaling",
    "global_attn_every_n_layers",
    "global_rope_theta",
    "local_rope_theta",
)
_MODULES = {**under("ultrabert.", ENCODER), **_HEAD}

ULTRABERT = Family(
    name="ultrabert",
    rules=(
        *copies(vocab_size=32_000, hidden_size=4096, intermediate_size=11_008),
        *copies(num_hidden_layers=32, num_attention_heads=32, initializer_range=0.02),
        Copy("max_position_embeddings", 32_768),
        Copy("rms_norm_eps", 1e-6, "layer_norm_eps"),
        Copy("prediction_head_size", 768, "mlm_hidden_size"),
        Biases(_BIASES),
        *LAYER_RULES,
        HeadWidth("head_dim"),
        Translated("classifier_pooling", "cls", "pooling", {"cls": "first", "mean": "mean"}),
        _WINDOWS,
        *(Only(name, (None,)) for name in _REFUSED),
    ),
    names=(Names(prefix="ultrabert.", modules=_MODULES, tensors={"mlm/decoder": "cls.weight"}),),
    classes={"UltrabertForMaskedLM": frozenset({"mlm"}), "UltrabertModel": frozenset()},
    tasks={task: PLAIN_TASKS[task] for task in list(PLAIN_TASKS)[:3]},
    task_class="Ultrabert",
    special_ids=ENDS,
    head_dropout=("classifier_dropout",),
)
