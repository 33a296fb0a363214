"""Choice between kernels and plain XLA, by configuration, device and shape."""

from bertjax.config import ModelConfig
from bertjax.model.kernels import (
    fused_norm,
    gpu_attention,
    tpu_attention,
    tpu_cross_entropy,
    tpu_long_attention,
    tpu_relative_attention,
)
from bertjax.model.layout import Layout


def on_tpu(config: ModelConfig, layout: Layout) -> bool:
    """Return True if the configuration allows kernels and the device is a TPU."""
    return config.kernels == "pallas" and layout.platform == "tpu"


def attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes global attention in rows of this length."""
    if config.relative_positions:
        return relative_attention(config, length, layout)
    if long_attention(config, length, True, layout):
        return True
    if on_tpu(config, layout):
        return tpu_attention.fits(length, _local_heads(config, layout), config.head_width)
    return local_attention(config, length, layout)


def local_attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes local attention in rows of this length."""
    if long_attention(config, length, False, layout):
        return True
    if config.kernels != "pallas" or layout.platform != "gpu":
        return False
    return gpu_attention.fits(length, config.head_width)


def long_attention(config: ModelConfig, length: int, is_global: bool, layout: Layout) -> bool:
    """Return True if the TPU kernel for long rows and windows computes attention.

    It rotates queries and keys, so it is also used for shorter rows with rotary positions.
    """
    if (
        config.relative_positions
        or config.attention_probs_dropout_prob
        or not on_tpu(config, layout)
    ):
        return False
    heads, width = _local_heads(config, layout), config.head_width
    if is_global and config.positions != "rotary" and tpu_attention.fits(length, heads, width):
        return False
    window = 0 if is_global else config.local_attention
    return tpu_long_attention.fits(
        length, window, heads, width, _itemsize(config), layout.core_memory
    )


def relative_attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if the TPU kernel for disentangled attention computes rows of this length."""
    if not config.relative_positions or config.positions == "rotary" or not on_tpu(config, layout):
        return False
    heads, width = _local_heads(config, layout), config.head_width
    return tpu_relative_attention.fits(length, heads, width, _itemsize(config), layout.core_memory)


def _itemsize(config: ModelConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4


def _local_heads(config: ModelConfig, layout: Layout) -> int:
    """Return the number of heads of a device: a mesh may divide the heads."""
    return config.num_attention_heads // layout.parts("heads")


def norm(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes dropout, residual and norm in rows of this length."""
    is_layer_norm = config.norm_type == "layer_norm"
    has_parameters = config.norm_scale and "norm" in config.biases
    if config.norm_place != "after" or not is_layer_norm or not has_parameters:
        return False
    return on_tpu(config, layout) and fused_norm.fits(length, config.hidden_size)


def pre_norm(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes the norm before a sublayer in rows of this length."""
    if config.norm_place == "after" or not on_tpu(config, layout):
        return False
    # It has no dropout, so that it takes parts of rows too.
    return fused_norm.fits(length // layout.parts("length"), config.hidden_size)


def cross_entropy(config: ModelConfig, shape: tuple[int, int], layout: Layout) -> bool:
    """Return True if a kernel computes the cross-entropy of `shape` (rows, masked words of a row).

    The whole batch has this shape. The kernel needs the whole vocabulary on each device.
    """
    rows, words = shape
    parts = layout.parts("batch")
    if not on_tpu(config, layout) or layout.parts("vocab") > 1 or rows % parts:
        return False
    entries = rows // parts * words
    width = config.embedding_width if config.mlm_transform else config.hidden_size
    vocabulary, memory = config.vocab_size, layout.core_memory
    return tpu_cross_entropy.fits(entries, vocabulary, width, _itemsize(config), memory)


def missing(
    config: ModelConfig, length: int, layout: Layout, masked: tuple[int, int] | None = None
) -> list[str]:
    """Return what XLA computes although `config` asks for kernels.

    This is any of `attention`, `norms`, and `cross-entropy` if there are masked words: `masked` is
    the shape that `cross_entropy` takes.
    """
    if config.kernels != "pallas":
        return []
    names = []
    has_global = any(config.attends_globally)
    has_local = not all(config.attends_globally)
    in_global = not has_global or attention(config, length, layout)
    in_local = not has_local or local_attention(config, length, layout)
    if not in_global or not in_local:
        names.append("attention")
    if not norm(config, length, layout) and not pre_norm(config, length, layout):
        names.append("norms")
    if masked is not None and not cross_entropy(config, masked, layout):
        names.append("cross-entropy")
    return names
