"""The FLOPs that a training step of the model needs, whoever computes it and however."""

from dataclasses import dataclass

from bertjax.config import Config, ModelConfig

# A multiply and an add for each weight and token forward, and twice that backward: once for the
# gradient of what came in, once for that of the weight.
FORWARD, TRAINING = 2, 6


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of one step over the whole batch; what is computed again to save memory does not count."""

    layers: int
    """Products with the layers' kernels."""
    attention: int
    """Products of queries with keys, and of probabilities with values, over whole rows or windows."""
    heads: int
    """The masked-word head at the places predicted, the pooler and the sentence head."""

    @property
    def total(self) -> int:
        return self.layers + self.attention + self.heads


def layer_weights(model: ModelConfig) -> int:
    """Entries of the kernels that each token is multiplied with, all layers: 4 D^2 + 2 D F a layer,
    and the projection of narrower embeddings.
    """
    width, feed_forward = model.hidden_size, model.intermediate_size
    projection = model.embedding_size * width
    return model.num_hidden_layers * (4 * width**2 + 2 * width * feed_forward) + projection


def model_flops(config: Config) -> ModelFlops:
    """FLOPs of a step of `config`, by the count of arXiv 2001.08361 (section 2.1), with attention's
    own products added and the heads where they are used.

    6 x kernel entries x tokens; attention 12 D a token, layer and key seen (4 D forward), which are
    L keys or a window's; the heads 6 x (D E + E V) a predicted place and 6 x (D^2 + 2 D) a sentence
    label. Embedding look-ups, norms, softmax and the optimizer are not counted; padding is, as any
    other token.
    """
    model, data, rows = config.model, config.data, config.train.batch_size
    tokens = rows * data.max_seq_length
    window = min(model.local_attention + 1, data.max_seq_length)
    keys = sum(
        data.max_seq_length if everywhere else window for everywhere in model.global_layers
    )
    attention = 2 * TRAINING * keys * model.hidden_size * tokens
    predicted = model.hidden_size * model.embedding_width + model.embedding_width * model.vocab_size
    heads = predicted * rows * data.max_predictions_per_seq
    if data.sentence_objective != "none":
        heads += (model.hidden_size**2 + 2 * model.hidden_size) * rows * data.max_sequences_per_row
    return ModelFlops(TRAINING * layer_weights(model) * tokens, attention, TRAINING * heads)
