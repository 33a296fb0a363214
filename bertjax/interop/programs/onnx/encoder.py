"""The encoder: its layers one after another, each with attention and feed-forward."""

from collections.abc import Callable

import numpy as np

from bertjax.interop.programs.onnx.attention import Surroundings, attention
from bertjax.interop.programs.onnx.embeddings import Row, embeddings, row
from bertjax.interop.programs.onnx.graph import LAYERS, Graph, Part, part
from bertjax.interop.programs.onnx.masks import global_mask, seen_keys
from bertjax.interop.programs.onnx.parts import activation, dense, norm
from bertjax.interop.programs.onnx.relative import relative
from bertjax.interop.programs.onnx.rotary import Rotation, rotation
from bertjax.interop.programs.onnx.windows import windows


def encoder(graph: Graph) -> str:
    """Add the embeddings and all layers; return the name of the last output, [b, l, D]."""
    config = graph.config
    rows = row(graph)
    seen = seen_keys(graph, rows)
    surroundings = Surroundings(
        global_mask(graph, seen) if any(config.attends_globally) else "",
        None if all(config.attends_globally) else windows(graph, rows, seen),
        _rotations(graph, rows),
        relative(graph, rows) if config.relative_positions else None,
    )
    x = embeddings(graph, rows)
    # The outputs of all sublayers so far, if they are mixed.
    outputs = [x]
    for i, is_global in enumerate(config.attends_globally):
        layer = Part(f"{LAYERS}{i}", f"{LAYERS}{0 if config.share_layers else i}")

        def attend(x: str, layer: Part = layer, is_global: bool = is_global) -> str:
            return attention(graph, layer.of("attention"), x, surroundings, is_global=is_global)

        def feed_forward(x: str, layer: Part = layer) -> str:
            return _feed_forward(graph, layer.of("mlp"), x)

        has_norm = config.first_norm or i > 0
        x = _sublayer(graph, layer, "attention", x, attend, has_norm=has_norm)
        x = _mixed(graph, 2 * i, outputs, x)
        x = _sublayer(graph, layer, "mlp", x, feed_forward)
        x = _mixed(graph, 2 * i + 1, outputs, x)
    if config.final_norm:
        x = norm(graph, part("encoder/final_norm"), x, config.hidden_size)
    return x


def _rotations(graph: Graph, rows: Row) -> tuple[Rotation, Rotation] | None:
    """Add the rotary positions of global and of local layers."""
    config = graph.config
    if config.positions != "rotary":
        return None
    in_global = rotation(graph, "encoder/rotary", rows, config.rotary_base)
    if all(config.attends_globally) or config.rotary_base_local in (0, config.rotary_base):
        return in_global, in_global
    in_local = rotation(graph, "encoder/rotary_local", rows, config.rotary_base_local)
    return in_global, in_local


def _sublayer(
    graph: Graph,
    layer: Part,
    sublayer: str,
    x: str,
    function: Callable[[str], str],
    *,
    has_norm: bool = True,
) -> str:
    """Add `x` plus the output of a sublayer, with the norms at their places.

    The norm before the sublayer is left out if it has none.
    """
    config, name = graph.config, layer.of(sublayer).name
    before = layer.of(f"{sublayer}_layer_norm")
    if config.norm_place == "after":
        summed = graph.op("Add", f"{name}/residual", x, function(x))
        return norm(graph, before, summed, config.hidden_size)
    normal = x
    if not has_norm:
        # The stack of the layers' norms has a row for it all the same.
        graph.known |= {f"{before.weights}/scale", f"{before.weights}/bias"}
    else:
        normal = norm(graph, before, x, config.hidden_size)
    added = function(normal)
    if config.norm_place == "both":
        added = norm(graph, layer.of(f"{sublayer}_output_norm"), added, config.hidden_size)
    return graph.op("Add", f"{name}/residual", x, added)


def _feed_forward(graph: Graph, mlp: Part, x: str) -> str:
    config = graph.config
    up = dense(graph, mlp.of("up"), x)
    if config.feed_forward == "gated":
        gate = activation(
            graph, f"{mlp.name}/gate", config.hidden_act, dense(graph, mlp.of("gate"), x)
        )
        active = graph.op("Mul", f"{mlp.name}/gated", gate, up)
    else:
        active = activation(graph, mlp.name, config.hidden_act, up)
    if config.norm_inside:
        active = norm(graph, mlp.of("inner_norm"), active, config.intermediate_size)
    return dense(graph, mlp.of("down"), active)


def _mixed(graph: Graph, sublayer: int, outputs: list[str], x: str) -> str:
    """Add the weighted sum of all outputs so far, among them `x` (arXiv 2402.02622, equation 1).

    `outputs` gets `x`. Without `layer_mix` the result is `x`.
    """
    if not graph.config.layer_mix:
        return x
    outputs.append(x)
    mix, name = graph.value("encoder/mix"), f"encoder/mix/{sublayer}"
    products = []
    for number, output in enumerate(outputs):
        weight = graph.constant(f"{name}/{number}/weight", np.float32(mix[sublayer, number]))
        products.append(graph.op("Mul", f"{name}/{number}", output, weight))
    return graph.op("Sum", name, *products)
