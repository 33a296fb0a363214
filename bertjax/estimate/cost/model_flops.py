"""FLOPs that a train step of the model needs, however it is computed."""

from dataclasses import dataclass

from bertjax.config import Config, ModelConfig

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
    """Products of queries with keys, and of probabilities with values."""
    heads: int
    """The masked-word head at the predicted positions, the pooler and the sentence head."""

    @property
    def total(self) -> int:
        """The FLOPs of a step."""
        return self.layers + self.attention + self.heads


def layer_weights(model: ModelConfig) -> int:
    """Count the entries of all kernels that each token is multiplied with, without the heads.

    A layer has 4 D^2 + 2 D F; a projection of narrower embeddings is added.
    """
    width, feed_forward = model.hidden_size, model.intermediate_size
    projection = model.embedding_size * width
    return model.num_hidden_layers * (4 * width**2 + 2 * width * feed_forward) + projection


def model_flops(config: Config) -> ModelFlops:
    """Count the FLOPs of a step of `config` as in arXiv 2001.08361, section 2.1.

    The layers take 6 x kernel entries x tokens. Two parts are added to this:

    - attention: 12 D for each token, layer and visible key (4 D of it forward); the visible keys
      are all L of a row, or those of a window
    - the heads that are used: 6 x (D E + E V) for each predicted position, and 6 x (D^2 + 2 D) for
      each sentence label

    Embedding look-ups, norms, softmax and the optimizer are not counted. Padding is counted like
    any other token.
    """
    model, data, batch_size = config.model, config.data, config.train.batch_size
    length, width = data.max_seq_length, model.hidden_size
    tokens = batch_size * length
    # Half of the window on each side, and the token itself.
    window = min(model.local_attention + 1, length)
    visible_keys = 0
    for is_global in model.attends_globally:
        visible_keys += length if is_global else window
    # Two products, each of D multiplications for each pair of query and key.
    attention = 2 * TRAIN_FLOPS * visible_keys * width * tokens
    mlm_weights = width * model.embedding_width + model.embedding_width * model.vocab_size
    # The head computes all these positions, even if a row has fewer masks.
    heads = mlm_weights * batch_size * data.max_predictions_per_seq
    if data.sentence_objective != "none":
        sentence_weights = width**2 + 2 * width
        heads += sentence_weights * batch_size * data.max_sequences_per_row
    return ModelFlops(TRAIN_FLOPS * layer_weights(model) * tokens, attention, TRAIN_FLOPS * heads)
