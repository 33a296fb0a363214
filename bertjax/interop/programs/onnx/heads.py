"""The outputs of a program: hidden states, sentence vectors, and the logits of the heads."""

from bertjax.interop.checkpoints.families.family import TASK_HEAD
from bertjax.interop.programs.onnx.graph import Graph, Part, part
from bertjax.interop.programs.onnx.parts import activation, dense, norm
from bertjax.interop.programs.serving import ServedModel, needs_sentence_vectors


def add_outputs(graph: Graph, hidden: str, model: ServedModel) -> None:
    """Add a node named as each output of `model`; `hidden` is the encoder's output."""
    outputs, head = model.outputs, model.head
    if "hidden" in outputs:
        graph.op("Identity", "hidden", hidden)
    vectors = ""
    if needs_sentence_vectors(outputs, head):
        vectors = _sentence_vectors(graph, hidden)
    if "pooled" in outputs:
        graph.op("Identity", "pooled", vectors)
    if "nsp_logits" in outputs:
        graph.op("Identity", "nsp_logits", dense(graph, part("nsp"), vectors))
    if head is not None and "logits" in outputs:
        x = vectors
        if head.on_tokens:
            # Its nodes have names of their own: the pooler may be in the graph twice.
            pooler = Part("token_pooler", "pooler")
            x = _pooler(graph, pooler, hidden) if graph.config.token_pooler else hidden
        graph.op("Identity", "logits", dense(graph, part(TASK_HEAD), x))
    if "mlm_logits" in outputs:
        graph.op("Identity", "mlm_logits", _mlm_logits(graph, hidden))


def _sentence_vectors(graph: Graph, hidden: str) -> str:
    """Add the pooler's function of the first hidden state, or of their mean; [b, D]."""
    config = graph.config
    if config.pooling == "mean":
        x = _mean(graph, hidden)
    else:
        zero = graph.integers("pooler/zero", 0)
        x = graph.op("Gather", "pooler/first", hidden, zero, axis=1)
    return _pooler(graph, part("pooler"), x)


def _pooler(graph: Graph, pooler: Part, x: str) -> str:
    """Add the pooler's function of vectors of width D."""
    config = graph.config
    if config.pooler == "none":
        return x
    active = activation(graph, f"{pooler.name}/act", config.pooler_act, dense(graph, pooler, x))
    if config.pooler_norm:
        active = norm(graph, pooler.of("layer_norm"), active, config.hidden_size)
    return active


def _mean(graph: Graph, hidden: str) -> str:
    """Add the mean of the hidden states that are not padding, [b, D]."""
    name = "pooler/mean"
    last, length = graph.integers(f"{name}/last", [-1]), graph.integers(f"{name}/length", [1])
    numbers = graph.op("Cast", f"{name}/numbers", "input_mask", to=1)  # 1 is TensorProto.FLOAT
    weights = graph.op("Unsqueeze", f"{name}/weights", numbers, last)
    weighted = graph.op("Mul", f"{name}/weighted", hidden, weights)
    total = graph.op("ReduceSum", f"{name}/total", weighted, length, keepdims=0)
    # A row of padding alone has no token; its mean is 0 and not 0 / 0.
    count = graph.op("ReduceSum", f"{name}/count", weights, length, keepdims=0)
    at_least_one = graph.op("Max", f"{name}/at_least_one", count, graph.constant(f"{name}/one", 1))
    return graph.op("Div", name, total, at_least_one)


def _mlm_logits(graph: Graph, hidden: str) -> str:
    config = graph.config
    x = _before(graph, hidden) if config.mlm_shifted else hidden
    if config.mlm_hidden_size:
        x = dense(graph, part("mlm/first"), x)
        x = activation(graph, "mlm/first", config.mlm_activation, x)
    if config.mlm_transform:
        x = dense(graph, part("mlm/transform"), x)
        x = activation(graph, "mlm/transform", config.mlm_activation, x)
        if config.mlm_norm:
            x = norm(graph, part("mlm/layer_norm"), x, config.embedding_width)
    if config.mlm_tied:
        table = graph.weight("embeddings/word/embedding")
        # The graph transposes the table, so that the file has the embeddings once for both uses.
        columns = graph.op("Transpose", "mlm/word_embedding", table, perm=(1, 0))
    else:
        columns = graph.weight("mlm/decoder")
    logits = graph.op("MatMul", "mlm/matmul", x, columns)
    if "mlm" not in config.biases:
        return logits
    return graph.op("Add", "mlm/add", logits, graph.weight("mlm/bias"))


def _before(graph: Graph, hidden: str) -> str:
    """Add the hidden state before each one, [b, l, D]; the first one's own stands in for it."""
    name = "mlm/before"
    zero, one = graph.integers(f"{name}/zero", [0]), graph.integers(f"{name}/one", [1])
    last = graph.integers(f"{name}/last", [-1])
    first = graph.op("Slice", f"{name}/first", hidden, zero, one, one)
    others = graph.op("Slice", f"{name}/others", hidden, zero, last, one)
    return graph.op("Concat", name, first, others, axis=1)
