"""UltraBERT (huggingface.co/dmis-lab/UltraBERT-150M): the layers of EuroBERT, with windows."""

from dataclasses import dataclass
from typing import Any

from bertjax.interop.checkpoints.families.bert import ENDS
from bertjax.interop.checkpoints.families.eurobert import ENCODER, LAYER_RULES
from bertjax.interop.checkpoints.families.family import PLAIN_TASKS, Family, Names, under
from bertjax.interop.checkpoints.families.rotary import GLOBAL, LOCAL, RotaryWindows
from bertjax.interop.checkpoints.families.rules import (
    Biases,
    Copy,
    HeadWidth,
    Only,
    Translated,
    Values,
    copies,
)

_WINDOW_OF_EACH, _BASE_OF_EACH = "attention_windows", "rope_theta"


@dataclass(frozen=True)
class _OfEachLayer(RotaryWindows):
    """The rule, which also reads an older form: lists with the window and base of each layer."""

    def read(self, values: Values) -> dict[str, Any]:
        found = self._windows(values)
        found |= self._bases(values, found.get("layer_types"))
        for name, value in found.items():
            if values.get(name, value) != value:
                raise values.refused(name, f"{value}, as the lists of all layers say")
        return super().read(values.replaced(found))

    def _windows(self, values: Values) -> dict[str, Any]:
        """Return the fields that mean the same as the list of windows."""
        windows = values.get(_WINDOW_OF_EACH)
        if windows is None:
            return {}
        # A layer with 0 or null has none.
        known = isinstance(windows, list) and all(
            window is None or (type(window) is int and window >= 0) for window in windows
        )
        if not known:
            raise values.refused(_WINDOW_OF_EACH, "a list of whole numbers from 0 on")
        widths = sorted({window for window in windows if window})
        if len(widths) > 1:
            raise values.refused(_WINDOW_OF_EACH, "one width for all layers with a window", widths)
        types = [LOCAL if window else GLOBAL for window in windows]
        return {"layer_types": types, **({self.field: widths[0]} if widths else {})}

    def _bases(self, values: Values, types: list[str] | None) -> dict[str, Any]:
        """Return the field that means the same as the list of bases."""
        bases = values.get(_BASE_OF_EACH)
        if bases is None:
            return {}
        if types is None:
            raise values.refused(_BASE_OF_EACH, f"no such field, or {_WINDOW_OF_EACH} beside it")
        if not isinstance(bases, list) or len(bases) != len(types) or None in bases:
            raise values.refused(_BASE_OF_EACH, f"a list of {len(types)} numbers, one a layer")
        of_kind: dict[str, Any] = {}
        for kind, base in zip(types, bases, strict=True):
            if of_kind.setdefault(kind, base) != base:
                raise values.refused(_BASE_OF_EACH, f"the same in all layers of {kind}")
        rotations: dict[str, Any] = {}
        for kind, base in of_kind.items():
            rotations[kind] = {"rope_type": "default", "rope_theta": base}
        return {"rope_parameters": rotations}


_HEAD = {"mlm/first": "head.linear1", "mlm/transform": "head.linear2", "mlm": "cls"}
_BIASES = {"attention_bias": (False, ("attention",)), "mlp_bias": (False, ("mlp", "mlp_output"))}
_WINDOWS = _OfEachLayer(
    (2.56e6, 1e4),
    width=256,
    every=3,
    first=2,
    field="sliding_window",
    unit=2,
    base_in_object=1e4,
)
# The class does not read those that ModernBERT has.
_REFUSED = (
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
