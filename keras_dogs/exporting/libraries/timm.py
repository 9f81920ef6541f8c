"""Opens a folder by timm."""


def open_model(folder):
    """Returns `prepare`, `run` and the class names."""
    import timm
    import torch
    from PIL import Image
    from PIL import ImageOps

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

    def prepare(file):
        with Image.open(file) as picture:
            return transform(ImageOps.exif_transpose(picture).convert("RGB")).permute(1, 2, 0).numpy()

    def run(pixels):
        with torch.inference_mode():
            return model(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()).numpy()

    return prepare, run, list(model.pretrained_cfg["label_names"])
