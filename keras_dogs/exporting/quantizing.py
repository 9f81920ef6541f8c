"""Weights and activations in 8-bit integers, with the ranges that training pictures give them."""

from pathlib import Path

import numpy as np


def quantize_onnx(source: Path, target: Path, canvases: np.ndarray) -> None:
    """Quantises convolutions and products of an ONNX file, a scale for each output channel.

    Args:
        source: Path. In float32.
        target: Path.
        canvases: uint8 array `(num_pictures, rows, columns, 3)`.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.batches = iter(np.array_split(canvases, max(len(canvases) // 8, 1)))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"canvases": batch}

    prepared = source.with_name("prepared.onnx")
    quantization.shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        target,
        Reader(),
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
        # Products of 8 and 8 bits would overflow the sums of processors without VNNI (ONNX Runtime's own advice).
        reduce_range=True,
        extra_options={"ActivationSymmetric": False},
    )


def quantize_openvino(model, canvases: np.ndarray):
    """Returns an `openvino.Model` whose convolutions and products are of integers.

    Args:
        model: `openvino.Model`.
        canvases: uint8 array `(num_pictures, rows, columns, 3)`.
    """
    import nncf

    nncf.set_log_level("ERROR")
    has_attention = any(node.get_type_name() in ("Softmax", "ScaledDotProductAttention") for node in model.get_ops())
    return nncf.quantize(
        model,
        nncf.Dataset([canvas[None] for canvas in canvases]),
        subset_size=len(canvases),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        # The resampling of the canvas: pixels keep their digits, as ONNX Runtime leaves an einsum alone.
        ignored_scope=nncf.IgnoredScope(patterns=["^bmm"], validate=False),
        # Weights of 7 bits: products of 8 and 8 overflow the sums of processors without VNNI.
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.ENABLE
        ),
    )
