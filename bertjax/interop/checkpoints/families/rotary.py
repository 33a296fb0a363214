"""Rotary positions and windows in a config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.config import ModelConfig
from bertjax.config.field_types import shown
from bertjax.interop.checkpoints.families.rules import Rule, Values

GLOBAL, LOCAL = "full_attention", "sliding_attention"
"""The kinds of layers, in `layer_types`."""


@dataclass(frozen=True)
class _Rotation:
    """The base of the angles, and the number that positions are divided by."""

    base: Any
    scaling: Any


def _rotation(values: Values, name: str, params: Any, base: Any) -> _Rotation:
    """Return what the object of a field says; `base` is the default."""
    if not isinstance(params, Mapping):
        raise values.refused(name, "an object", params)
    kind = params.get("rope_type", params.get("type", "default"))
    if kind not in ("default", "linear"):
        raise values.refused(name, "rope_type default or linear", params)
    if params.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise values.refused(name, "partial_rotary_factor 1", params)
    scaling = params.get("factor", 1.0) if kind == "linear" else 1.0
    given = params.get("rope_theta")
    found = base if given is None else given
    if found == 0:
        # In the model 0 is the base of global layers.
        raise values.refused(name, "a base of 1 or more", found)
    return _Rotation(found, scaling)


def _written(base: float, scaling: float) -> dict[str, Any]:
    if scaling == 1:
        return {"rope_type": "default", "rope_theta": base}
    return {"rope_type": "linear", "rope_theta": base, "factor": scaling}


@dataclass(frozen=True)
class Rotary(Rule):
    """Rotary positions that are the same in all layers."""

    default: float
    """Base of the angles."""

    def read(self, values: Values) -> dict[str, Any]:
        if values.get("partial_rotary_factor", 1) != 1:
            raise values.refused("partial_rotary_factor", "1")
        # The old name goes before the new one, as in `transformers`.
        name = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
        base = values.get("rope_theta", self.default)
        read = _rotation(values, name, values.get(name, {}), base)
        return {"rotary_base": read.base, "rotary_scaling": read.scaling}

    def write(self, config: ModelConfig) -> dict[str, Any]:
        return {"rope_parameters": _written(config.rotary_base, config.rotary_scaling)}


@dataclass(frozen=True)
class RotaryWindows(Rule):
    """Windows in some layers, and rotary positions with a base for these and one for the others."""

    bases: tuple[float, float]
    """Bases of the angles in global and in local layers, by default."""
    width: int
    """Width of the windows by default."""
    every: int
    """By default, and in new models: every n-th layer is global."""
    first: int = 0
    """The first global layer by default."""
    field: str = "local_attention"
    """The name of the field with the width."""
    unit: int = 1
    """Number by which the field is smaller than the width: 2 if it is the width on each side."""
    counts_own: bool = False
    """Whether half of the field's width counts the token itself, as in causal classes."""
    base_in_object: float = 0.0
    """Base that an object of `rope_parameters` without one has; 0: the default."""

    def read(self, values: Values) -> dict[str, Any]:
        # Half of the width is on each side of a token; half a token is on none.
        half = self.unit * values.count(self.field, self.width // self.unit) // 2
        width = 2 * (half - self.counts_own)
        every, first, has_local = self._layers(values)
        if has_local and width < 1:
            # In the model 0 stands for no window; in the file a token attends to itself alone.
            least = 2 // self.unit + 2 * self.counts_own
            raise values.refused(self.field, f"{least} or more, for its local layers")
        fields = {"local_attention": width if has_local else 0}
        if has_local:
            fields |= {"global_attn_every_n_layers": every, "first_global_layer": first}
        return {**fields, **self._rotations(values)}

    def _layers(self, values: Values) -> tuple[int, int, bool]:
        """Return n and the first global layer, and whether there are local layers."""
        types = values.get("layer_types")
        if types is None:
            every = values.count("global_attn_every_n_layers", self.every)
            if every == 0:
                raise values.refused("global_attn_every_n_layers", "1 or more", 0)
            return every, self.first, every > 1
        count = values.get("num_hidden_layers")
        layers = "all" if count is None else shown(count)
        known = isinstance(types, list) and set(map(str, types)) <= {GLOBAL, LOCAL}
        if not known or len(types) != values.get("num_hidden_layers", len(types)):
            raise values.refused("layer_types", f"{GLOBAL} or {LOCAL} of {layers} layers")
        is_global = [kind == GLOBAL for kind in types]
        pattern = regular_pattern(is_global, self.every)
        if pattern is None:
            raise values.refused("layer_types", f"every n-th one {GLOBAL}")
        return *pattern, not all(is_global)

    def _rotations(self, values: Values) -> dict[str, Any]:
        nested = values.get("rope_parameters", {})
        if not isinstance(nested, Mapping) or "rope_theta" in nested or "rope_type" in nested:
            raise values.refused("rope_parameters", f"an object with {GLOBAL} and {LOCAL}")
        scaling = values.get("rope_scaling", {})
        if not isinstance(scaling, Mapping):
            raise values.refused("rope_scaling", "an object")
        found: list[_Rotation] = []
        for kind, name, base in zip(
            (GLOBAL, LOCAL), ("global_rope_theta", "local_rope_theta"), self.bases, strict=True
        ):
            params = nested.get(kind)
            base = values.get(name, base)
            if params is None:
                params = {}
                # Here `transformers` has set rope_type to default before it sees `type`.
                if "rope_type" not in scaling and scaling.get("type", "default") != "default":
                    expected = "rope_type default or linear, in place of type"
                    raise values.refused("rope_parameters", expected, scaling)
            else:
                base = self.base_in_object or base
            if not isinstance(params, Mapping):
                raise values.refused("rope_parameters", "objects", params)
            both = {**params, **scaling}
            found.append(_rotation(values, "rope_parameters", both, base))
        in_global, in_local = found
        if in_global.scaling != in_local.scaling:
            raise values.refused("rope_parameters", "the same factor in all layers")
        return {
            "rotary_base": in_global.base,
            "rotary_base_local": in_local.base,
            "rotary_scaling": in_global.scaling,
        }

    def write(self, config: ModelConfig) -> dict[str, Any]:
        local_base = config.rotary_base_local or config.rotary_base
        types = [GLOBAL if is_global else LOCAL for is_global in config.attends_globally]
        # A model without windows has the default, which is not used.
        width = config.local_attention or self.width
        return {
            "layer_types": types,
            self.field: (width + 2 * self.counts_own) // self.unit,
            "rope_parameters": {
                GLOBAL: _written(config.rotary_base, config.rotary_scaling),
                LOCAL: _written(local_base, config.rotary_scaling),
            },
        }


def regular_pattern(is_global: Sequence[bool], usual: int) -> tuple[int, int] | None:
    """Return n and the first global layer where every n-th layer is global; None if there is none.

    Of several n the `usual` one is preferred.
    """
    if not any(is_global):
        return 0, 0
    first, count = is_global.index(True), len(is_global)
    following = next((i for i in range(first + 1, count) if is_global[i]), None)
    least = max(first + 1, count - first) if following is None else following - first
    for every in (usual, least):
        expected = [layer % every == first for layer in range(count)]
        if first < every and expected == list(is_global):
            return every, first
    return None
