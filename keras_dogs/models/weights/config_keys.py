"""The keys of other libraries' config files: what each key that we know may be. A key that we do not know is an error.

A file that is read half computes another network and says nothing. So each key is read, has no effect on the logits, or
has the one value that the networks here compute.
"""

from typing import Any
from typing import NamedTuple


class Keys(NamedTuple):
    """What a config may hold.

    Attributes:
        read: tuple of str. Keys that the reader takes into account.
        idle: tuple of str. Keys without effect on the logits of a picture.
        fixed: dict of str to tuple. Keys that may have one of these values and no other.
    """

    read: tuple[str, ...]
    idle: tuple[str, ...]
    fixed: dict[str, tuple[Any, ...]]


def check(error, file: str, config: dict, keys: Keys) -> None:
    """Refuses a config with a key that is unknown or has a value that is not computed here.

    Args:
        error: function of a text to a `UserError`.
        file: str. How the config is called: `"config.json"`.
        config: dict.
        keys: `Keys`.

    Raises:
        UserError: it names the file, the key and the value.
    """
    if not isinstance(config, dict):
        raise error(f"{file} holds no object but {_shown(config)}")
    for key, value in config.items():
        if key in keys.fixed:
            if not any(type(value) is type(allowed) and value == allowed for allowed in keys.fixed[key]):
                allowed = " or ".join(_shown(each) for each in keys.fixed[key])
                raise error(f"{file}: {key} is {_shown(value)}, which is not supported; {allowed} is")
        elif key not in keys.read and key not in keys.idle:
            raise error(f"{file}: unknown key {_shown(key)}; remove it if the logits do not depend on it")


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def number(error, file: str, config: dict, key: str, default=None, least: float = 1, most: float = 1e5, kind=int):
    """Returns a number of a config, checked.

    Args:
        error: function of a text to a `UserError`.
        file: str.
        config: dict.
        key: str.
        default: number or `None`. Where the key is missing; without one it must be there.
        least: float. The least value.
        most: float. The greatest.
        kind: `int` or `float`.

    Raises:
        UserError: it is missing, of another type, or out of range.
    """
    value = config.get(key, default)
    if value is None:
        raise error(f"{file}: {key} is missing")
    is_number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise error(f"{file}: {key} is {_shown(value)}; it must be a number from {least:g} to {most:g}")
    return value


def size(error, file: str, config: dict, key: str, default=None) -> tuple[int, int]:
    """Returns a number of pixels, or a pair of them: rows and columns.

    Raises:
        UserError: it is neither.
    """
    value = config.get(key, default)
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2:
        raise error(f"{file}: {key} is {_shown(value)}; it must be a number or a pair of them")
    return tuple(number(error, file, {key: side}, key, most=4096) for side in pair)


def colours(error, file: str, config: dict, key: str, is_divisor: bool = False) -> list[float]:
    """Reads three numbers, one for each channel.

    Args:
        error: function of a text to a `UserError`.
        file: str.
        config: dict.
        key: str.
        is_divisor: bool. Whether zero is refused, too.

    Raises:
        UserError: they are not.
    """
    values = config.get(key)
    is_sound = isinstance(values, (list, tuple)) and len(values) == 3
    is_sound = is_sound and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if not is_sound or not all(-1e4 < value < 1e4 and not (is_divisor and value <= 0) for value in values):
        above = " above 0" if is_divisor else ""
        raise error(f"{file}: {key} is {_shown(values)}; it must be three numbers{above}")
    return [float(value) for value in values]


_NOTHING = (None,)
_DROPS = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
# timm 1.0: `VisionTransformer.__init__`.
TIMM_VIT_ARGUMENTS = Keys(
    read=(
        *("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "global_pool", "class_token"),
        *(
            "fc_norm",
            "act_layer",
            "num_classes",
            "qkv_bias",
            "no_embed_class",
            "init_values",
        ),  # the last three by the tensors
    ),
    idle=(*_DROPS, "weight_init", "fix_init", "device", "dtype", "dynamic_img_size", "final_norm"),
    fixed={
        "in_chans": (3,),
        **dict.fromkeys(("qk_norm", "scale_attn_norm", "scale_mlp_norm", "pre_norm"), (False,)),
        **dict.fromkeys(("pool_include_prefix", "dynamic_img_pad"), (False,)),
        "proj_bias": (True,),
        "pos_embed": ("learn",),
        "reg_tokens": (0,),
        **dict.fromkeys(("embed_layer", "embed_norm_layer", "norm_layer", "block_fn", "mlp_layer"), _NOTHING),
        "attn_layer": (None, "attn"),
    },
)
# timm 1.0: `ResNet.__init__` and `ResNetV2.__init__`.
TIMM_RESNET_ARGUMENTS = Keys(
    read=("num_classes", "global_pool", "layers"),
    idle=("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "device", "dtype"),
    fixed={
        "in_chans": (3,),
        "output_stride": (32,),
        "cardinality": (1,),
        "base_width": (64,),
        **dict.fromkeys(("stem_width", "stem_chs"), (64,)),
        "stem_type": ("",),
        **dict.fromkeys(("replace_stem_pool", "avg_down"), (False,)),
        **dict.fromkeys(("block_reduce_first", "down_kernel_size", "width_factor"), (1,)),
        "channels": ([64, 128, 256, 512], [256, 512, 1024, 2048]),
        "act_layer": (None, "relu"),
        **dict.fromkeys(("norm_layer", "aa_layer", "conv_layer"), _NOTHING),
        "block_args": (None, {}),
        "preact": (True,),
        "bottle_ratio": (0.25,),
    },
)
TIMM = Keys(
    read=(
        "architecture",
        "global_pool",
        "model_args",
        "pretrained_cfg",
        "num_classes",
        "mean",
        "std",
        "interpolation",
        "label_names",
    ),
    idle=(
        "num_features",
        "label_descriptions",
        "library_name",
        "timm_version",
        "crop_pct",
        "input_size",
    ),
    fixed={},
)
# timm 1.0: `PretrainedCfg`.
TIMM_PRETRAINED = Keys(
    read=("input_size", "fixed_input_size", "interpolation", "crop_pct", "mean", "std", "num_classes"),
    idle=(
        *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag", "custom_load", "state_dict"),
        *("min_input_size", "test_input_size", "test_crop_pct", "crop_mode", "label_offset", "label_names"),
        *("label_descriptions", "pool_size", "test_pool_size", "first_conv", "classifier", "license", "description"),
        *("origin_url", "paper_name", "paper_ids", "notes", "tags"),
    ),
    fixed={},
)

# transformers 5: `PreTrainedConfig`, and what earlier versions wrote for any model.
_GENERAL = (
    *("_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "torch_dtype", "finetuning_task"),
    *("id2label", "label2id", "num_labels", "is_encoder_decoder", "is_decoder", "output_attentions", "_commit_hash"),
    *("output_hidden_states", "problem_type", "return_dict", "tie_word_embeddings", "torchscript", "use_cache"),
    *("transformers_version", "use_bfloat16", "attn_implementation", "_attn_implementation_autoset", "use_return_dict"),
    *("out_features", "out_indices", "_out_features", "_out_indices", "stage_names"),
)
_OF_VITS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "encoder_stride", "drop_path_rate"),
    *("pooler_act", "pooler_output_size", "apply_layernorm", "reshape_hidden_states"),
)
_VIT_READ = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps"),
    *("image_size", "patch_size", "qkv_bias"),
)
HUGGING_FACE = {
    "vit": Keys(
        (*_VIT_READ, "intermediate_size"), (*_GENERAL, *_OF_VITS), {"num_channels": (3,), "pruned_heads": ({},)}
    ),
    "dinov2": Keys(
        (
            *(*_VIT_READ, "mlp_ratio", "layerscale_value", "num_register_tokens", "use_mask_token", "use_swiglu_ffn"),
            *("intermediate_size",),
        ),
        (*_GENERAL, *_OF_VITS),
        {"num_channels": (3,), "pruned_heads": ({},)},
    ),
    "resnet": Keys(
        (
            *("model_type", "embedding_size", "hidden_sizes", "depths", "layer_type", "hidden_act"),
            *("downsample_in_first_stage", "downsample_in_bottleneck"),
        ),
        _GENERAL,
        {"num_channels": (3,), "pruned_heads": ({},)},
    ),
}
HUGGING_FACE |= {"deit": HUGGING_FACE["vit"], "dinov2_with_registers": HUGGING_FACE["dinov2"]}
# transformers: image processors of these families, by either of their names.
PREPROCESSOR = Keys(
    read=(
        *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample", "do_resize", "size"),
        *("do_center_crop", "crop_size", "crop_pct"),
    ),
    idle=(
        *("do_convert_rgb", "image_processor_type", "feature_extractor_type", "processor_class", "data_format"),
        *("default_to_square", "return_tensors", "input_data_format", "device", "disable_grouping", "image_seq_length"),
        *("_valid_processor_keys", "do_pad", "pad_size", "do_reduce_labels", "model_input_names", "use_fast"),
    ),
    fixed={"offset": (False,)},
)


def interpolation_of(name) -> tuple[str, tuple[str, ...]]:
    """Returns the resampling for a checkpoint, and a note where its own kind is not available.

    Args:
        name: str or int. `"bicubic"` and the like, or the number of a filter of Pillow's.
    """
    filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    name = filters.get(name, name) if isinstance(name, int) else name
    if name in ("bilinear", "bicubic"):
        return name, ()
    return "bicubic", (f"it asks for pictures resized by {_shown(name)}; here they are resized by 'bicubic'",)


def crop_note(share) -> tuple[str, ...]:
    """Returns the note for a checkpoint that was evaluated on the centre of each picture."""
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        return ()
    return (f"it was scored on the central {share:.1%} of each picture's side; here the whole picture is seen",)
