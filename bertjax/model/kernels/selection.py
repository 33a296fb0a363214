"""Choice between kernels and plain XLA, by configuration, device and shape."""

from bertjax.config import ModelConfig
from bertjax.model.kernels import fused_norm, gpu_attention, tpu_attention
from bertjax.model.layout import Layout


def on_tpu(config: ModelConfig, layout: Layout) -> bool:
    """Return True if the configuration allows kernels and the device is a TPU."""
    return config.kernels == "pallas" and layout.platform == "tpu"


def attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes global attention in rows of this length."""
    if config.relative_positions:
        return False
    if not on_tpu(config, layout):
        return local_attention(config, length, layout)
    # A mesh may divide the heads, and each device's kernel sees its own.
    local_heads = config.num_attention_heads // layout.parts("heads")
    return tpu_attention.fits(length, local_heads, config.head_width)


def local_attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes local attention in rows of this length (only on GPUs)."""
    if config.kernels != "pallas" or layout.platform != "gpu":
        return False
    return gpu_attention.fits(length, config.head_width)


def norm(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Return True if a kernel computes dropout, residual and norm in rows of this length."""
    is_layer_norm = config.norm_type == "layer_norm"
    has_parameters = config.norm_scale and "norm" in config.biases
    if config.norm_place != "after" or not is_layer_norm or not has_parameters:
        return False
    return on_tpu(config, layout) and fused_norm.fits(length, config.hidden_size)


def missing(config: ModelConfig, length: int, layout: Layout) -> list[str]:
    """Return which of `attention` and `norms` XLA computes although `config` asks for kernels."""
    if config.kernels != "pallas":
        return []
    names = []
    if not attention(config, length, layout):
        names.append("attention")
    if not norm(config, length, layout):
        names.append("norms")
    return names
