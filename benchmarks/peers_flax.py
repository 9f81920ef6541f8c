"""A ViT and a ResNet of Flax' own layers.

The ViT is that of google-research/vision_transformer (`vit_jax/models_vit.py`), written again from "An Image is Worth
16x16 Words", equations 1 to 4; the ResNet that of Flax' ImageNet example, v1.5.
"""

import flax.linen as nn
import jax.numpy as jnp


class ViT(nn.Module):
    """Pictures `(batch, 224, 224, 3)` to logits."""

    width: int
    depth: int
    heads: int
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, training):
        """Equations 1 and 4."""
        x = nn.Conv(self.width, (16, 16), (16, 16), padding="VALID", dtype=self.dtype)(x)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)).astype(x.dtype), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:])).astype(x.dtype)
        for _ in range(self.depth):
            x = self.block(x)
        return nn.Dense(self.num_classes, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x)[:, 0])

    def block(self, x):
        """Equations 2 and 3."""
        y = nn.LayerNorm(dtype=self.dtype)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)(y, y)
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.gelu(nn.Dense(4 * self.width, dtype=self.dtype)(y), approximate=False)
        return x + nn.Dense(self.width, dtype=self.dtype)(y)


class ResNet(nn.Module):
    """Pictures to logits."""

    blocks: tuple
    is_bottleneck: bool
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, training):
        """Runs stem, four stages, mean and head."""
        x = nn.Conv(64, (7, 7), (2, 2), padding=3, use_bias=False, dtype=self.dtype)(x)
        x = nn.max_pool(nn.relu(self.norm(training)(x)), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                x = self.block(x, 64 * 2**stage, 2 if stage and not number else 1, training)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x.mean(axis=(1, 2)))

    def norm(self, training):
        """Normalises as Keras does."""
        return nn.BatchNorm(use_running_average=not training, momentum=0.9, dtype=self.dtype)

    def block(self, x, width, stride, training):
        """Runs a basic or a bottleneck block."""
        shortcut = x
        plan = [(1, 1), (3, stride), (1, 1)] if self.is_bottleneck else [(3, stride), (3, 1)]
        outputs = 4 * width if self.is_bottleneck else width
        for place, (kernel, step) in enumerate(plan):
            is_last = place == len(plan) - 1
            x = nn.Conv(outputs if is_last else width, (kernel,) * 2, (step,) * 2, use_bias=False, dtype=self.dtype)(x)
            x = self.norm(training)(x)
            x = x if is_last else nn.relu(x)
        if shortcut.shape != x.shape:
            shortcut = nn.Conv(outputs, (1, 1), (stride,) * 2, use_bias=False, dtype=self.dtype)(shortcut)
            shortcut = self.norm(training)(shortcut)
        return nn.relu(x + shortcut)
