"""Operators of PyTorch's that are ours: a trace has each as one call, which has a gradient (not under `torch.func`)."""

import threading

_declaring = threading.Lock()  # PyTorch takes no operator twice


class Operator:
    """A function of tensors, made an operator when it is first called.

    Args:
        schema: str. Its name, arguments and results, as PyTorch writes them.
        compute: function. Computes it on a CPU.
        fake: function. Returns fake tensors like its results (a `fake` implementation, as PyTorch calls it).
        keep: function of `ctx, inputs, output`. Keeps in `ctx` what the gradient needs.
        differentiate: function of `ctx` and the gradients by the results. Gives those by the arguments.
    """

    def __init__(self, schema: str, compute, fake, keep, differentiate):
        self._schema, self._compute, self._fake = schema, compute, fake
        self._keep, self._differentiate = keep, differentiate
        self._call = None

    def __call__(self, *arguments):
        """Runs the operator."""
        if self._call is None:
            with _declaring:
                self._call = self._call or self._declare()
        return self._call(*arguments)

    def _declare(self):
        import torch

        name = self._schema.partition("(")[0]
        self._library = library = torch.library.Library("keras_dogs", "FRAGMENT")  # kept: what it declares goes with it
        library.define(self._schema)
        library.impl(name, self._compute, "CPU")
        torch.library.register_fake(f"keras_dogs::{name}", self._fake, lib=library)
        torch.library.register_autograd(
            f"keras_dogs::{name}", self._differentiate, setup_context=self._keep, lib=library
        )
        return getattr(torch.ops.keras_dogs, name).default


def is_compiling_or_exporting() -> bool:
    """Returns whether PyTorch is compiling or exporting what runs: then it must meet no operators but its own."""
    import torch

    return torch.compiler.is_compiling() or torch.jit.is_tracing()
