"""Where our TPU kernels are used."""

from bertjax.config import ModelConfig
from bertjax.model import fused_attention, fused_norm
from bertjax.model.layout import Layout


def used(config: ModelConfig, layout: Layout) -> bool:
    """Whether kernels are asked for, and can run."""
    return config.kernels == "pallas" and layout.platform == "tpu"


def attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Whether attention over rows of this length is the kernel's."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    return used(config, layout) and fused_attention.fits(length, heads // layout.parts("heads"), width)


def norm(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Whether dropout, residual and norm of rows of this length are the kernel's."""
    return used(config, layout) and fused_norm.fits(length, config.hidden_size)


def missing(config: ModelConfig, length: int, layout: Layout) -> list[str]:
    """What is asked of kernels and will be computed without, in words."""
    if config.kernels != "pallas":
        return []
    found = {"attention": attention(config, length, layout), "norms": norm(config, length, layout)}
    return [what for what, kernel in found.items() if not kernel]
