"""Opens a folder by Hugging Face's transformers."""


def open_model(folder):
    """Returns `prepare`, `run` and the class names."""
    import torch
    from transformers import AutoImageProcessor
    from transformers import AutoModelForImageClassification
    from transformers.image_utils import load_image

    model, report = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    left = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    if left:
        raise ValueError(f"transformers finds tensors missing or without use: {left[0]}")
    model.eval()
    processor = AutoImageProcessor.from_pretrained(folder)

    def prepare(file):
        return processor(images=load_image(str(file)), return_tensors="pt")["pixel_values"][0].permute(1, 2, 0).numpy()

    def run(pixels):
        with torch.inference_mode():
            return model(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()).logits.numpy()

    return prepare, run, [model.config.id2label[place] for place in range(model.config.num_labels)]
