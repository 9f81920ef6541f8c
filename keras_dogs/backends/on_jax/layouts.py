"""How variables lie on the devices of JAX: whole on each, or the large ones of a ViT in shards."""

import keras

from keras_dogs.backends import keras_inside

# By the path of a variable: the axis of the mesh along which each of its own is divided. A block's first products are
# divided by what comes out, its second ones by what goes in: one sum over the shards each, as in Megatron-LM (Shoeybi
# et al., arXiv 1909.08053, section 3). KerasHub's ViT, then what DeiT calls otherwise.
VIT_LAYOUT = {
    r".*mha/(query|key|value)/kernel": (None, "model", None),
    r".*mha/(query|key|value)/bias": ("model", None),
    r".*mha/attention_output/kernel": ("model", None, None),
    r".*mlp/dense(_1)?/kernel": (None, "model"),
    r".*mlp/dense(_1)?/bias": ("model",),
    r".*(mlp/dense_2|output_layer/output)/kernel": ("model", None),
}


def distribution(devices: list, shards: int):
    """Returns a copy of the model on each of some JAX devices, or on each `shards` of them."""
    names = [f"{device.platform}:{device.id}" for device in devices]
    if shards == 1:
        return keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((len(names) // shards, shards), ["batch", "model"], names)
    layout = keras.distribution.LayoutMap(mesh)
    for path, axes in VIT_LAYOUT.items():
        layout[path] = axes
    return _Shards(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)


class _Shards(keras.distribution.ModelParallel):
    def get_variable_layout(self, variable):
        """Returns the layout from the table; a variable that does not divide evenly is whole on each device."""
        layout, (_, shards) = super().get_variable_layout(variable), self.device_mesh.shape
        if all(size % shards == 0 for size, axis in zip(variable.shape, layout.axes) if axis):
            return layout
        return keras.distribution.TensorLayout([None] * len(variable.shape), self.device_mesh)


def num_divided(model) -> int:
    """Returns how many of a model's variables are in shards."""
    return sum(
        any(variable._layout.axes) for variable in model.variables if keras_inside.has(variable, "variable_layout")
    )
