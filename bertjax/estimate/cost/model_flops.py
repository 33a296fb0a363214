"""FLOPs that a train step of the model needs, however it is computed."""

from dataclasses import dataclass

from bertjax.config import Config, ModelConfig, ReplacedConfig
from bertjax.config.objectives.replaced import generator_of

# FLOPs of a train step for each weight and token. Forward 2, a multiply and an add; backward twice
# that: once for the gradient of the input, once for that of the weight.
TRAIN_FLOPS = 6


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of one step over the global batch.

    Values that are computed again in the backward pass, to save memory, do not count.
    """

    layers: int
    """Products with the layers' kernels."""
    attention: int
    """Products of queries with keys, of probabilities with values, and of relative positions."""
    heads: int
    """The head for masked words at the predicted positions, the pooler and the sentence head; the
    head for replaced tokens at all.
    """

    @property
    def total(self) -> int:
        """The FLOPs of a step."""
        return self.layers + self.attention + self.heads


def layer_weights(model: ModelConfig) -> int:
    """Count the entries of all kernels that each token is multiplied with, without the heads.

    A layer has 2 D H K for queries and output, 2 D K for each head of keys and values, D H K for a
    gate on the values, and 2 D F of the feed-forward sublayer, or 3 D F if it is gated. H K is D
    unless `attention_head_size` says otherwise. A projection of narrower embeddings is added.
    """
    width, feed_forward = model.hidden_size, model.intermediate_size
    attention = 2 * width * model.attention_width
    attention += 2 * width * model.key_value_heads * model.head_width
    if model.value_gate:
        attention += width * model.attention_width
    matrices = 3 if model.feed_forward == "gated" else 2
    layer = attention + matrices * width * feed_forward
    return model.num_hidden_layers * layer + model.embedding_size * width


def model_flops(config: Config) -> ModelFlops:
    """Count the FLOPs of a step of `config` as in arXiv 2001.08361, section 2.1.

    The layers take 6 x kernel entries x tokens. Two parts are added to this:

    - attention: 12 H K for each token, layer and visible key (4 H K of it forward); the visible
      keys are all L of a row, or those of a window. Relative positions take as much for each row
      of their table that occurs, and 12 D H K in each layer to project a row of the table
    - the heads that are used: for each predicted position 6 x (D E + E V), or 6 x D V without the
      transform; for each sentence label 6 x (D^2 + 2 D), or 6 x 2 D without the pooler's kernel;
      for each token of replaced-token detection 6 x (D^2 + D)

    Where there is a generator, the values are sums over both networks.
    Embedding look-ups, norms, softmax, rotations and the optimizer are not counted. Padding is
    counted like any other token.
    """
    model, data, batch_size = config.model, config.data, config.train.batch_size
    tokens = batch_size * data.max_seq_length
    if config.replaced.is_used:
        generator = generator_of(model, config.replaced)
        alone = model_flops(config.replace(model=generator, replaced=ReplacedConfig()))
        width = model.hidden_size
        return ModelFlops(
            alone.layers + TRAIN_FLOPS * layer_weights(model) * tokens,
            alone.attention + _attention_flops(model, data.max_seq_length, tokens),
            alone.heads + TRAIN_FLOPS * (width**2 + width) * tokens,
        )
    heads = _mlm_weights(model) * batch_size * data.max_predictions_per_seq
    if data.sentence_objective != "none":
        width = model.hidden_size
        pooler_weights = width**2 if model.pooler == "dense" else 0
        heads += (pooler_weights + 2 * width) * batch_size * data.max_sequences_per_row
    return ModelFlops(
        TRAIN_FLOPS * layer_weights(model) * tokens,
        _attention_flops(model, data.max_seq_length, tokens),
        TRAIN_FLOPS * heads,
    )


def _attention_flops(model: ModelConfig, length: int, tokens: int) -> int:
    width = model.attention_width
    # Half of the window on each side, and the token itself.
    window = min(model.local_attention + 1, length)
    compared = 0
    for is_global in model.attends_globally:
        compared += length if is_global else window
    # A row of L ids has 2 L - 1 distances. Each query is compared with their rows of the table, and
    # each key, whether the program computes a product for a row or for each distance.
    occurring = min(model.relative_positions, 2 * length - 1)
    compared += model.num_hidden_layers * occurring
    # The table is projected once in a layer and a step, for queries and for keys.
    projection = 2 * model.hidden_size * width
    table = projection * model.relative_positions * model.num_hidden_layers
    # Two products, each of H K multiplications for each pair of query and key.
    return 2 * TRAIN_FLOPS * compared * width * tokens + TRAIN_FLOPS * table


def _mlm_weights(model: ModelConfig) -> int:
    """Count the entries of the matrices of the head for masked words.

    The head computes all of `data.max_predictions_per_seq`, even if a row has fewer masks.
    """
    if not model.mlm_transform:
        return model.hidden_size * model.vocab_size
    width = model.embedding_width
    return model.hidden_size * width + width * model.vocab_size
