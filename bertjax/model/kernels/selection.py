"""Where our kernels are used."""

from bertjax.config import ModelConfig
from bertjax.model.kernels import fused_norm, gpu_attention, tpu_attention
from bertjax.model.layout import Layout


def on_tpu(config: ModelConfig, layout: Layout) -> bool:
    """Whether kernels are asked for, and those for TPU can run."""
    return config.kernels == "pallas" and layout.platform == "tpu"


def attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Whether attention over whole rows of this length is a kernel's."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    if on_tpu(config, layout):
        return tpu_attention.fits(length, heads // layout.parts("heads"), width)
    return local_attention(config, length, layout)


def local_attention(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Whether attention to near keys, in rows of this length, is a kernel's."""
    width = config.hidden_size // config.num_attention_heads
    return (
        config.kernels == "pallas"
        and layout.platform == "gpu"
        and gpu_attention.fits(length, width)
    )


def norm(config: ModelConfig, length: int, layout: Layout) -> bool:
    """Whether dropout, residual and norm of rows of this length are the kernel's."""
    return on_tpu(config, layout) and fused_norm.fits(length, config.hidden_size)


def missing(config: ModelConfig, length: int, layout: Layout) -> list[str]:
    """What is asked of kernels and will be computed without, in words."""
    if config.kernels != "pallas":
        return []
    found = {"attention": attention(config, length, layout), "norms": norm(config, length, layout)}
    return [what for what, kernel in found.items() if not kernel]
