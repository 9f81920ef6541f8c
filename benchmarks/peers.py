"""What keras_dogs is measured against: the same architectures as each framework's own libraries have them.

Each function gives `(train_step, predict)`, of no argument: the first begins a step and gives its loss, unread, the
second returns when the logits are there. No augmentation: the pictures are float32 and ready, on the device. SGD with
momentum, cross-entropy.
"""

import numpy as np

NUM_CLASSES = 120
TIMM = {
    "vit_tiny_patch16_224": "vit_tiny_patch16_224",
    "vit_small_patch16_224": "vit_small_patch16_224",
    "vit_base_patch16_224": "vit_base_patch16_224",
    "resnet_18": "resnet18",
    "resnet_50": "resnet50",
}
# Width, depth, heads: "How to train your ViT", arXiv 2106.10270, table 2.
VITS = {
    "vit_tiny_patch16_224": (192, 12, 3),
    "vit_small_patch16_224": (384, 12, 6),
    "vit_base_patch16_224": (768, 12, 12),
}
# Blocks a stage, bottleneck or not: arXiv 1512.03385, table 1.
RESNETS = {"resnet_18": ((2, 2, 2, 2), False), "resnet_50": ((3, 4, 6, 3), True)}
_LIBRARIES = []


def pictures(batch_size: int, image_size: int = 224):
    """Returns a batch of noise, float32 in [-1, 1], channels last, and labels."""
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (batch_size, image_size, image_size, 3)).astype("float32")
    return images, generator.integers(0, NUM_CLASSES, batch_size)


def _torch_steps(model, images, labels, dtype: str, logits_of=lambda outputs: outputs, compiled: bool = False):
    """Runs the usual loop of PyTorch; ResNets are channels last, which is what both libraries advise."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    is_mixed = dtype == "mixed_bfloat16"
    torch.backends.cudnn.benchmark = True
    model = model.to(device, memory_format=torch.channels_last)
    model = torch.compile(model) if compiled else model
    images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device, memory_format=torch.channels_last)
    labels = torch.from_numpy(labels).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def train_step():
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            loss = torch.nn.functional.cross_entropy(logits_of(model(images)), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def predict():
        model.eval()
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_mixed):
            return logits_of(model(images)).float().cpu().numpy()

    return train_step, predict


def declare_torchvision() -> None:
    """Declares what both libraries import of torchvision, which has no compiled part for this PyTorch on a CPU."""
    import torch

    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    _LIBRARIES.append(library)  # what it declares goes with it


def timm(model: str, batch_size: int, dtype: str, compiled: bool = False):
    """Builds the model of timm, eager."""
    declare_torchvision()
    import timm
    import torch

    torch.manual_seed(0)
    built = timm.create_model(TIMM[model], num_classes=NUM_CLASSES)
    return _torch_steps(built, *pictures(batch_size), dtype, compiled=compiled)


def timm_compiled(model: str, batch_size: int, dtype: str):
    """Builds the same through `torch.compile`."""
    return timm(model, batch_size, dtype, compiled=True)


def transformers(model: str, batch_size: int, dtype: str):
    """Builds Hugging Face's model, eager, with the attention that it chooses itself."""
    declare_torchvision()
    import torch
    import transformers

    torch.manual_seed(0)
    if model in VITS:
        width, depth, heads = VITS[model]
        config = transformers.ViTConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            num_labels=NUM_CLASSES,
        )
        built = transformers.ViTForImageClassification(config)
    else:
        blocks, is_bottleneck = RESNETS[model]
        sizes = [256, 512, 1024, 2048] if is_bottleneck else [64, 128, 256, 512]
        config = transformers.ResNetConfig(
            depths=list(blocks),
            hidden_sizes=sizes,
            layer_type="bottleneck" if is_bottleneck else "basic",
            num_labels=NUM_CLASSES,
        )
        built = transformers.ResNetForImageClassification(config)
    return _torch_steps(built, *pictures(batch_size), dtype, lambda outputs: outputs.logits)


def flax(model: str, batch_size: int, dtype: str):
    """Builds the model of Flax' layers as vision_transformer and Flax' ResNet example do; jit, state donated."""
    import functools

    import jax
    import jax.numpy as jnp
    import optax
    from peers_flax import ResNet
    from peers_flax import ViT

    compute = jnp.bfloat16 if dtype == "mixed_bfloat16" else jnp.float32
    network = (
        ViT(*VITS[model], NUM_CLASSES, compute) if model in VITS else ResNet(*RESNETS[model], NUM_CLASSES, compute)
    )
    images, labels = (jax.device_put(array) for array in pictures(batch_size))
    state = dict(network.init(jax.random.key(0), images[:1], training=False))
    parameters, statistics = state.pop("params"), state
    optimizer = optax.sgd(1e-3, momentum=0.9)
    memory = optimizer.init(parameters)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(parameters, statistics, memory, images, labels):
        def loss_of(parameters):
            logits, new = network.apply(
                {"params": parameters, **statistics}, images, training=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean(), new

        (loss, new), gradients = jax.value_and_grad(loss_of, has_aux=True)(parameters)
        updates, memory = optimizer.update(gradients, memory, parameters)
        return optax.apply_updates(parameters, updates), dict(new), memory, loss

    @jax.jit
    def forward(parameters, statistics, images):
        return network.apply({"params": parameters, **statistics}, images, training=False).astype(jnp.float32)

    held = [parameters, statistics, memory]

    def train_step():
        *held[:], loss = step(*held, images, labels)
        return loss

    return train_step, lambda: np.asarray(forward(*held[:2], images))
