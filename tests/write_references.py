"""Writes checkpoints of transformers and timm with random weights, and what those libraries make of two pictures.

`python write_references.py FOLDER`; run by `test_reference_weights.py` in a process of its own, as it needs PyTorch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import timm.layers
import timm.models
import torch
import transformers

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype="uint8")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
INCEPTION = ([0.5] * 3, [0.5] * 3)
VIT_B = dict(num_labels=7)
DEIT_S = dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=7)
DINOV2_S = dict(hidden_size=384, num_attention_heads=6, num_labels=7, image_size=518, patch_size=14)
HUGGING_FACE = {
    "vit_b16": (transformers.ViTConfig(**VIT_B), transformers.ViTForImageClassification, INCEPTION),
    "deit_s": (transformers.DeiTConfig(**DEIT_S), transformers.DeiTForImageClassificationWithTeacher, IMAGENET),
    "dinov2_s": (transformers.Dinov2Config(**DINOV2_S), transformers.Dinov2ForImageClassification, IMAGENET),
    "resnet50_hf": (transformers.ResNetConfig(num_labels=7), transformers.ResNetForImageClassification, IMAGENET),
}
TIMM = (
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_small_patch32_224",
    "vit_base_patch16_224",
    "vit_base_patch32_224",
    "deit_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "resnet18",
    "resnet50",
    "resnetv2_50",
)

ODD_VITS = {
    "vit_of_six_heads": dict(num_heads=6, depth=2),
    "vit_with_fc_norm_of_the_token": dict(fc_norm=True, global_pool="token", depth=2),
    "vit_of_an_odd_width": dict(embed_dim=96, num_heads=4, depth=2),
    "vit_with_gelu_tanh": dict(act_layer="gelu_tanh", depth=2),
}


def randomise(model):
    """Gives every number a value of its own, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.dtype == torch.float32:
            noise = torch.randn(value.shape, generator=generator)
            # Scales and variances around 1, the rest around what it was made with.
            is_scale = value.ndim == 1 and not name.endswith(("bias", "running_mean"))
            value.copy_(1 + 0.2 * noise.abs()) if is_scale else value.add_(0.02 * noise)
    return model.eval()


def pixels_of(mean, std):
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return (torch.tensor(PICTURES).permute(0, 3, 1, 2) / 255 - mean) / std


def logits(model, mean, std, get=lambda output: output):
    with torch.no_grad():
        return get(model(pixels_of(mean, std))).numpy()


def rollout(model, mean, std):
    """Attention rollout (arXiv 2005.00928) of a ViT of transformers, from the attention that it gives out itself."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(pixels_of(mean, std), output_attentions=True).attentions
    flow = torch.eye(attentions[0].shape[-1])
    for attention in attentions:
        mixed = attention.mean(dim=1) + torch.eye(attention.shape[-1])
        flow = mixed / mixed.sum(dim=-1, keepdim=True) @ flow
    return flow[:, 0, 1:].reshape(len(PICTURES), 14, 14).numpy()


def grad_cam(model, mean, std):
    """Grad-CAM (arXiv 1610.02391) of the greatest logit of a ResNet of timm, by PyTorch's differentiation."""
    kept = []
    hook = model.layer4.register_forward_hook(lambda module, given, output: kept.append(output))
    scores = model(pixels_of(mean, std))
    hook.remove()
    gradients = torch.autograd.grad(scores.max(dim=1).values.sum(), kept[0])[0]
    return torch.relu((gradients.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1)).detach().numpy()


def main(folder: Path):
    expected = {"pictures": PICTURES}
    for name, (config, model_class, (mean, std)) in HUGGING_FACE.items():
        model = randomise(model_class(config))
        shards = {"max_shard_size": "100MB"} if name == "vit_b16" else {}
        model.save_pretrained(folder / name, **shards)
        (folder / name / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": mean, "image_std": std, "do_normalize": True, "resample": 3})
        )
        expected[name] = logits(model, mean, std, lambda output: output.logits)
        if name == "vit_b16":
            expected[f"{name} explained"] = rollout(model, mean, std)
    for name in TIMM:
        model = randomise(timm.create_model(name, num_classes=7))
        timm.models.save_for_hf(model, folder / name, safe_serialization=True)
        conversion = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
        expected[name] = logits(model, *conversion)
        if name == "resnet50":
            expected[f"{name} explained"] = grad_cam(model, *conversion)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=7, global_pool="avg", class_token=True, fc_norm=True, qkv_bias=False
    )
    timm.models.save_for_hf(randomise(model), folder / "vit_with_fc_norm", safe_serialization=True)
    expected["vit_with_fc_norm"] = logits(model, *INCEPTION)

    # What no tensor tells, and `model_args` alone says.
    for name, arguments in ODD_VITS.items():
        model = timm.create_model("vit_tiny_patch16_224", num_classes=7, **arguments)
        timm.models.save_for_hf(randomise(model), folder / name, safe_serialization=True, model_args=arguments)
        expected[name] = logits(model, *INCEPTION)

    # The same ResNet as torchvision would save it, and as a checkpoint of a training.
    model = timm.create_model("resnet18", num_classes=7)
    randomise(model)
    torch.save(model.state_dict(), folder / "resnet18.pth")
    expected["resnet18.pth"] = logits(model, *IMAGENET)
    torch.save({"state_dict": model.half().state_dict(), "epoch": 3}, folder / "resnet18_half.pth")

    # Positions at other sizes.
    table = torch.randn(1, 1 + 14 * 14, 32)
    expected["table"] = table.numpy()[0]
    for rows, columns in ((24, 24), (7, 7), (15, 20)):
        resized = timm.layers.resample_abs_pos_embed(table, [rows, columns], num_prefix_tokens=1)
        expected[f"timm {rows} {columns}"] = resized.numpy()[0]
        config = transformers.ViTConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
        embeddings = transformers.ViTModel(config).embeddings
        embeddings.position_embeddings.data = table
        with torch.no_grad():
            patches = torch.zeros(1, 1 + rows * columns, 32)
            resized = embeddings.interpolate_pos_encoding(patches, 16 * rows, 16 * columns)
        expected[f"transformers {rows} {columns}"] = resized.numpy()[0]
    np.savez(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
