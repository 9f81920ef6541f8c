"""How variables lie on the devices of JAX: whole on each, or the large ones of a ViT in shards."""

import keras

# By the path of a variable: the axis of the mesh along which each of its own is divided. A block's first products are
# divided by what comes out, its second ones by what goes in: one sum over the shards each, as in Megatron-LM (Shoeybi
# et al., arXiv 1909.08053, section 3). KerasHub's ViT and DeiT; DINOv2.
VIT_LAYOUT = {
    r".*(query|key|value)/kernel": (None, "model", None),
    r".*(query|key|value)/bias": ("model", None),
    r".*attention_output/kernel": ("model", None, None),
    r".*(dense_1|fc1|intermediate.*)/kernel": (None, "model"),
    r".*(dense_1|fc1|intermediate.*)/bias": ("model",),
    r".*(dense_2|fc2)/kernel": ("model", None),
}


def distribution(devices: list, shards: int):
    """A copy of the model on each of some JAX devices, or on each `shards` of them."""
    names = [f"{device.platform}:{device.id}" for device in devices]
    if shards == 1:
        return keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((len(names) // shards, shards), ["batch", "model"], names)
    layout = keras.distribution.LayoutMap(mesh)
    for path, axes in VIT_LAYOUT.items():
        layout[path] = axes
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
