"""Counts, from a preset's row of the table, the parameters of its backbone and its operations per picture."""

from keras_dogs.models import families
from keras_dogs.models.presets import Preset


def count_parameters(row: Preset) -> int:
    """Counts the weights of the backbone without a head, including the moving statistics of batch norms."""
    return _resnet(row)[0] if families.family(row.family).kind == families.RESNET else _vit(row)[0]


def count_gflops(row: Preset, image_size: int | None = None, whole: bool = True) -> float:
    """Counts the GFLOPs of the backbone's forward pass for one picture: multiply-adds only, two operations each.

    Args:
        row: `Preset`.
        image_size: int or `None`. Side of the picture in pixels; `None` takes the size in the row.
        whole: bool. `False` counts the last block for the class token alone, as our classifiers compute it in the ViT
            family; it has no effect on DeiT and ResNet.
    """
    return 2e-9 * (
        _resnet(row, image_size)[1]
        if families.family(row.family).kind == families.RESNET
        else _vit(row, image_size, whole)[1]
    )


def _vit(row: Preset, image_size: int | None = None, whole: bool = True) -> tuple[int, int]:
    """Returns parameters and multiply-adds of a ViT or DeiT (arXiv 2010.11929, equations 1 to 4)."""
    build = row.architecture
    width, depth, patch = build["hidden_dim"], build["num_layers"], build["patch_size"]
    mlp = build.get("mlp_dim") or build["intermediate_dim"]
    num_prefix = families.family(row.family).num_prefix

    def num_patches(size):
        return (size // patch) ** 2

    embedding = patch * patch * 3 * width
    positions = (num_patches(row.image_size) + num_prefix) * width
    block = 4 * width * width + 2 * width * mlp
    norms_and_biases = 4 * width + 4 * width + mlp + width  # two norms; biases of q, k, v and output; of the MLP
    parameters = embedding + width + num_prefix * width + positions + depth * (block + norms_and_biases) + 2 * width
    patches = num_patches(image_size or row.image_size)
    tokens = patches + num_prefix
    products = tokens * block + 2 * tokens * tokens * width
    # For the class token alone, keys and values still need all tokens; queries, output and MLP need one.
    last = (
        products
        if whole or not families.family(row.family).last_block_alone
        else 2 * tokens * width * width + (block - 2 * width * width) + 2 * tokens * width
    )
    return parameters, patches * embedding + (depth - 1) * products + last


def _resnet(row: Preset, image_size: int | None = None) -> tuple[int, int]:
    """Returns parameters and multiply-adds of a ResNet: v1.5, v2 or vd."""
    build = row.architecture
    is_v2, is_vd = build["use_pre_activation"], build["block_type"].endswith("_vd")
    is_bottleneck = build["block_type"].startswith("bottleneck")
    size, parameters, products = image_size or row.image_size, 0, 0

    def convolve(inputs, outputs, kernel, side):
        nonlocal parameters, products
        weights = inputs * outputs * kernel * kernel
        parameters, products = parameters + weights, products + weights * side * side

    def normalise(channels):
        nonlocal parameters
        parameters += 4 * channels  # scale, offset, moving mean, moving variance

    channels, side = 3, -(-size // 2)
    stem = list(zip(build["input_conv_filters"], build["input_conv_kernel_sizes"]))
    for number, (filters, kernel) in enumerate(stem):
        convolve(channels, filters, kernel, side)
        channels = filters
        if not is_v2 or number < len(stem) - 1:
            normalise(filters)
    side = -(-side // 2)
    stages = zip(build["stackwise_num_filters"], build["stackwise_num_blocks"], build["stackwise_num_strides"])
    for stage, (filters, count, stride) in enumerate(stages):
        outputs = filters * 4 if is_bottleneck else filters
        for block in range(count):
            before, side = side, -(-side // (stride if block == 0 else 1))
            if is_v2:
                normalise(channels)
            if block == 0 and (is_bottleneck or stage > 0 or is_vd):
                convolve(channels, outputs, 1, side)
                if not is_v2:
                    normalise(outputs)
            if is_bottleneck:
                layers = ((channels, filters, 1, before), (filters, filters, 3, side), (filters, outputs, 1, side))
            else:
                layers = ((channels, filters, 3, side), (filters, filters, 3, side))
            for number, layer in enumerate(layers):
                convolve(*layer)
                if not is_v2 or number < len(layers) - 1:
                    normalise(layer[1])
            channels = outputs
    if is_v2:
        normalise(channels)
    return parameters, products
