"""timm checkpoints of ViT, DeiT, DINOv2 and ResNet (v1.5, v2), and torchvision's of ResNets, which have the same names.

The layouts are those of `timm/models/{vision_transformer,deit,resnet,resnetv2}.py`. The architecture is read off the
tensors; `config.json` says what they cannot tell (`model_args`) and how pictures were converted (`pretrained_cfg`).
"""

import math
import re
from pathlib import Path

from keras_dogs.models import families
from keras_dogs.models.presets import CONVERSIONS
from keras_dogs.models.weights import config_keys
from keras_dogs.models.weights import resnets
from keras_dogs.models.weights import timm_names as names
from keras_dogs.models.weights import vits
from keras_dogs.models.weights.checkpoint import Checkpoint
from keras_dogs.models.weights.checkpoint import open_checkpoint
from keras_dogs.models.weights.hugging_face import mean_head
from keras_dogs.models.weights.loaded import Head
from keras_dogs.models.weights.loaded import Loaded
from keras_dogs.models.weights.loaded import Wanted
from keras_dogs.models.weights.loaded import conversion_of
from keras_dogs.models.weights.transfer import transfer

# Architectures whose tensors tell everything: others have the same tensors and compute something else with them
# (resnetaa50 pools, so400m has other heads and another GELU).
_ARCHITECTURES = (
    r"(vit|deit)_(tiny|small|base|large|huge)_(distilled_)?patch\d+(_gap)?_\d+(_miil)?"
    r"|vit_(small|base|large)_patch14_dinov2|resnet(18|26|34|50|101|152)|resnetv2_(18|34|50|101|152)"
)
_GELUS = {"gelu": False, "gelu_tanh": True}
_NUM_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_IGNORED = ("head.*", "head_dist.*", "fc.*", "pre_logits.*", "fc_norm.*", "*.num_batches_tracked")


def load(wanted: Wanted, path: Path, config: dict) -> Loaded:
    """Loads a folder whose `config.json` is `config`, or a bare file with an empty one."""
    if not wanted.load_weights:
        raise wanted.error("load_weights=False needs a name of the table of presets; this is a file of weights")
    architecture = config.get("architecture")
    if architecture and not re.fullmatch(_ARCHITECTURES, architecture):
        raise wanted.error(
            f"{architecture} of timm is not supported; plain ViTs and DeiTs (vit_base_patch16_224, "
            "deit_small_distilled_patch16_224), resnet50 and resnetv2_50 and their like are"
        )
    config_keys.check(wanted.error, "config.json", config, config_keys.TIMM)
    if config.get("global_pool", "token") not in ("token", "avg"):
        raise wanted.error(f"config.json: global_pool {config['global_pool']} of timm is not supported")
    config_keys.check(wanted.error, "pretrained_cfg", _pretrained(config), config_keys.TIMM_PRETRAINED)
    with open_checkpoint(wanted.preset, path) as checkpoint:
        loaded = _with_names(_with_conversion(wanted, _load(wanted, checkpoint, config), config), config)
        return loaded._replace(notes=(*checkpoint.notes, *loaded.notes))


def _with_names(loaded: Loaded, config: dict) -> Loaded:
    """Returns the names of the classes with the head, where the config has one for each."""
    names = config.get("label_names")
    if loaded.head is None or not isinstance(names, list) or len(names) != len(loaded.head.bias):
        return loaded
    return loaded._replace(head=loaded.head._replace(class_names=[str(name) for name in names]))


def _pretrained(config: dict) -> dict:
    """Returns the config of the picture conversion; old files have it in the config itself."""
    values = config.get("pretrained_cfg")
    if values is not None:
        return values
    return {name: config[name] for name in config.keys() & {"mean", "std", "interpolation", "crop_pct", "input_size"}}


def _arguments(wanted: Wanted, config: dict, keys: config_keys.Keys) -> dict:
    """Returns the arguments that the model was built with beside its name, checked."""
    arguments = config.get("model_args") or {}
    config_keys.check(wanted.error, "model_args", arguments, keys)
    pools = {source.get("global_pool") for source in (config, arguments)} - {None}
    if len(pools) > 1:
        raise wanted.error(f"config.json: global_pool is {' and '.join(sorted(map(repr, pools)))} at once")
    return {**arguments, "global_pool": next(iter(pools), None)}


def _load(wanted: Wanted, checkpoint: Checkpoint, config: dict) -> Loaded:
    if "patch_embed.proj.weight" in checkpoint:
        return _load_vit(wanted, checkpoint, config)
    if "conv1.weight" in checkpoint or "stem.conv.weight" in checkpoint:
        return _load_resnet(wanted, checkpoint, config)
    raise checkpoint.error(
        "neither a ViT nor a ResNet of timm or torchvision; looked for patch_embed.proj.weight, conv1.weight or "
        f"stem.conv.weight, found {', '.join(list(checkpoint.shapes)[:3]) or 'no tensor'}"
    )


def _load_vit(wanted: Wanted, checkpoint: Checkpoint, config: dict) -> Loaded:
    missing = [name for name in ("pos_embed", "blocks.0.mlp.fc1.weight") if name not in checkpoint]
    if missing:
        raise checkpoint.error(f"no plain ViT: it has no {' and no '.join(missing)}")
    arguments = _arguments(wanted, config, config_keys.TIMM_VIT_ARGUMENTS)
    width, _, patch, other = checkpoint.shapes["patch_embed.proj.weight"]
    if patch != other:
        raise checkpoint.error(f"patches of {patch} x {other}; only square ones are supported")
    num_heads = arguments.get("num_heads", _NUM_HEADS.get(width))
    if num_heads is None:
        raise checkpoint.error(
            f"a ViT of width {width}, whose number of heads is not known; model_args can say num_heads"
        )
    if type(num_heads) is not int or num_heads < 1 or width % num_heads:
        raise checkpoint.error(f"model_args: num_heads is {num_heads}, which does not divide the width {width}")
    family, num_prefix = _family_of(checkpoint)
    grid = _grid(wanted, checkpoint, arguments, config, patch, num_prefix)
    own = (grid[0] * patch, grid[1] * patch)
    size = wanted.image_size or (own if "img_size" in arguments else vits.usual_size(family, own))
    architecture = _architecture(checkpoint, family, arguments, patch, own) | dict(num_heads=num_heads)
    backbone = vits.build(family, size, wanted.dtype, **architecture)
    sources = names.vit_sources(checkpoint, family, backbone, num_prefix)
    sources |= vits.position_sources("pos_embed", family, backbone, num_prefix, wanted.positions or "bicubic", grid)
    ignored = transfer(checkpoint, vits.weights(family, backbone), sources, _IGNORED)
    has_token, has_fc_norm = "cls_token" in checkpoint, "fc_norm.weight" in checkpoint
    # By default, timm puts the norm after the pooling only for average pooling.
    pool = arguments["global_pool"] or ("token" if has_token and not has_fc_norm else "avg")
    if pool not in ("token", "avg") or (pool == "token" and not has_token) or (pool == "avg" and family == "deit"):
        raise checkpoint.error(f"config.json: global_pool is {pool!r}, which is not supported for this ViT")
    pooling, fc_norm = {"token": "token", "avg": "average_of_patches"}[pool], None
    if has_fc_norm:
        fc_norm = (checkpoint.read("fc_norm.weight"), checkpoint.read("fc_norm.bias"))
        ignored = [name for name in ignored if not name.startswith("fc_norm.")]
    conversion = CONVERSIONS[families.family(family).conversion]
    loaded = Loaded(backbone, family, size, *conversion, pooling, None, "bicubic", num_prefix, fc_norm, tuple(ignored))
    return _with_head(loaded, checkpoint, "head", "head_dist") if wanted.with_head else loaded


def _family_of(checkpoint: Checkpoint) -> tuple[str, int]:
    """Returns the family that the tensors are of, and the number of tokens before the patches."""
    is_distilled, has_token = "dist_token" in checkpoint, "cls_token" in checkpoint
    if "blocks.0.ls1.gamma" not in checkpoint:
        return ("deit", 2) if is_distilled else ("vit", int(has_token))
    if is_distilled or not has_token or "fc_norm.weight" in checkpoint:
        raise checkpoint.error("a ViT that scales its branches as DINOv2 does, but is none; it is not supported")
    return "dinov2", 1


def _architecture(checkpoint: Checkpoint, family: str, arguments: dict, patch: int, own: tuple[int, int]) -> dict:
    """Returns the arguments of KerasHub's class, except the number of heads; refuses contradictory `model_args`."""
    width, mlp_dim = checkpoint.shapes["patch_embed.proj.weight"][0], checkpoint.shapes["blocks.0.mlp.fc1.weight"][0]
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in checkpoint.shapes)
    has_token = "cls_token" in checkpoint
    given = dict(embed_dim=width, depth=depth, patch_size=patch, mlp_ratio=mlp_dim / width, class_token=has_token)
    for name, found in given.items():
        if family != "deit" and name in arguments and arguments[name] != found and arguments[name] != [found, found]:
            raise checkpoint.error(f"model_args: {name} is {arguments[name]}, the tensors say {found}")
    activation = arguments.get("act_layer") or "gelu"
    if activation not in _GELUS or (family != "vit" and _GELUS[activation]):
        raise checkpoint.error(f"model_args: act_layer is {activation!r}, which is not supported; gelu is")
    common = dict(patch_size=patch, num_layers=depth, hidden_dim=width)
    if family == "deit":
        return common | dict(intermediate_dim=mlp_dim)
    if family == "dinov2":
        return common | dict(intermediate_dim=mlp_dim, use_mask_token=False, position_embedding_shape=own)
    final_norm = "fc_norm.weight" not in checkpoint
    variant = dict(use_class_token=has_token, final_norm=final_norm, approximate_gelu=_GELUS[activation])
    return common | dict(mlp_dim=mlp_dim) | variant


def _grid(wanted, checkpoint, arguments: dict, config: dict, patch: int, num_prefix: int) -> tuple[int, int]:
    """Returns rows and columns of patches in the table of positions: as the config says, or a square.

    Raises:
        UserError: the table has another number of positions.
    """
    count = checkpoint.shapes["pos_embed"][1]
    size = None
    if arguments.get("img_size") is not None:
        size = config_keys.size(wanted.error, "model_args", arguments, "img_size")
    elif len(given := _pretrained(config).get("input_size") or ()) == 3:
        size = config_keys.size(wanted.error, "pretrained_cfg", {"input_size": given[1:]}, "input_size")
    side = math.isqrt(count)  # with tokens too: 198 -> 14
    for grid in ((size[0] // patch, size[1] // patch) if size else None, (side, side)):
        if grid and count - grid[0] * grid[1] in (0, num_prefix):
            return grid
    raise checkpoint.error(f"{count} positions fit neither a square of patches nor img_size {size}")


def _load_resnet(wanted: Wanted, checkpoint: Checkpoint, config: dict) -> Loaded:
    arguments = _arguments(wanted, config, config_keys.TIMM_RESNET_ARGUMENTS)
    if arguments["global_pool"] not in (None, "avg"):
        raise checkpoint.error(f"config.json: global_pool is {arguments['global_pool']!r}; 'avg' alone is supported")
    is_v2 = "stem.conv.weight" in checkpoint
    if is_v2 and "norm.running_mean" not in checkpoint:
        raise checkpoint.error("a BiT (group norm, standardised weights), which KerasHub's ResNet cannot hold")
    block = "stages.{}.blocks.{}" if is_v2 else "layer{}.{}"
    counts = []
    for stage in range(4):
        first = stage if is_v2 else stage + 1
        count = 0
        while f"{block.format(first, count)}.conv1.weight" in checkpoint:
            count += 1
        counts.append(count)
    is_bottleneck = f"{block.format(0 if is_v2 else 1, 0)}.conv3.weight" in checkpoint
    if 0 in counts:
        raise checkpoint.error("a stage has no blocks; not a ResNet of four stages")
    backbone = resnets.build(counts, is_bottleneck, is_v2, wanted.dtype)
    sources = (names.resnet_v2_sources if is_v2 else names.resnet_sources)(backbone)
    ignored = tuple(transfer(checkpoint, resnets.weights(backbone), sources, _IGNORED))
    if "layers" in arguments and list(arguments["layers"]) != counts:
        raise checkpoint.error(f"model_args: layers is {arguments['layers']}, the tensors say {counts}")
    input_size = _pretrained(config).get("input_size", (3, 224, 224))
    own = config_keys.size(wanted.error, "pretrained_cfg", {"input_size": input_size[1:]}, "input_size")
    size = wanted.image_size or own
    conversion = CONVERSIONS["imagenet"]
    loaded = Loaded(backbone, "resnet", size, *conversion, "average", None, "bicubic", 0, None, ignored)
    return _with_head(loaded, checkpoint, "head.fc" if is_v2 else "fc") if wanted.with_head else loaded


def _with_head(loaded: Loaded, checkpoint: Checkpoint, *names: str) -> Loaded:
    """Returns the checkpoint's classifier; of a distilled DeiT both heads' mean, as one head on both tokens."""
    found = [name for name in names if f"{name}.weight" in checkpoint]
    if not found:
        raise checkpoint.error("has no classifier of its own; give num_classes")
    heads = []
    for name in found:
        kernel = checkpoint.read(f"{name}.weight")
        heads.append((kernel.reshape(len(kernel), -1).T, checkpoint.read(f"{name}.bias")))
    pre_logits = None
    if "pre_logits.fc.weight" in checkpoint:
        pre_logits = (checkpoint.read("pre_logits.fc.weight").T, checkpoint.read("pre_logits.fc.bias"))
    head: Head = mean_head(heads)._replace(pre_logits=pre_logits)
    used = (*(f"{name}." for name in found), "pre_logits.")
    ignored = tuple(name for name in loaded.ignored if not name.startswith(used))
    pooling = "two_tokens" if len(heads) == 2 else loaded.pooling
    return loaded._replace(head=head, pooling=pooling, ignored=ignored)


def _with_conversion(wanted: Wanted, loaded: Loaded, config: dict) -> Loaded:
    """Returns the checkpoint's own mean, deviation and resampling."""
    values = _pretrained(config)
    if not config:
        note = f"no config.json, so {_assumed(loaded)}, {_UNSEEN[loaded.family == 'resnet']}"
        return loaded._replace(notes=(note,))
    interpolation, notes = config_keys.interpolation_of(values.get("interpolation", "bicubic"))
    notes = (*notes, *config_keys.crop_note(values.get("crop_pct")))
    loaded = loaded._replace(interpolation=interpolation, notes=notes)
    if "mean" not in values:
        return loaded._replace(notes=(f"no mean in config.json, so {_assumed(loaded)}", *notes))
    mean = config_keys.colours(wanted.error, "pretrained_cfg", values, "mean")
    scale, offset = conversion_of(mean, config_keys.colours(wanted.error, "pretrained_cfg", values, "std", True))
    return loaded._replace(scale=scale, offset=offset)


def _assumed(loaded: Loaded) -> str:
    known = {CONVERSIONS["inception"]: "0.5 and 0.5", CONVERSIONS["imagenet"]: "ImageNet's"}
    return f"mean and deviation of pixels are taken to be {known[loaded.scale, loaded.offset]}"


# What the tensors do not tell, by whether it is a ResNet.
_UNSEEN = {
    True: "the pooling to be an average, and the stem not to be anti-aliased",
    False: "the activation to be GELU, and the heads those of this width",
}
