"""Compiled layers in PyTorch models, for inference on the CPU.

    spec = "olmoe_block.moe"                                  # x: f32[S, D] -> y: f32[S, D], with a `weights` section
    for layer in model.model.layers:
        layer.mlp = moec.torch.module(layer.mlp, spec, settings={…})
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch
from safetensors.torch import save_file

from . import Model, MoecError, compile, load

__all__ = ["CompiledLayer", "module"]


def module(
    block: torch.nn.Module,
    spec: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
    threads: int = 0,
) -> CompiledLayer:
    """Compiles `spec` with the parameters of `block`, which its `weights` section calls as `block.state_dict()` does."""
    with tempfile.TemporaryDirectory(prefix="moec-") as folder:
        checkpoint, build = Path(folder) / "checkpoint", Path(folder) / "build"
        checkpoint.mkdir()
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in block.state_dict().items()}
        save_file(tensors, checkpoint / "model.safetensors")
        compile(spec, weights=checkpoint, output=build, settings=settings, options=options)
        # Once they are mapped, library and weights need no names any more.
        return CompiledLayer(load(build, threads=threads))


class CompiledLayer(torch.nn.Module):
    """A model with one input f32[S, D] and one output of the same shape, over all leading axes of what it is given.

    Rows that stand in one call are one pass: a layer whose tokens meet (a capacity, a batch-wide gate) sees them together.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        inputs, outputs = list(model.inputs.values()), list(model.outputs.values())
        fits = len(inputs) == len(outputs) == 1 and inputs[0].positions and outputs[0].positions
        if not fits or (inputs[0].dtype, inputs[0].axes) != (outputs[0].dtype, outputs[0].axes) or inputs[0].dtype != "f32":
            raise MoecError(f"{model!r} is no layer: one input f32[positions, D], and an output like it")
        self.model = model
        self._input, self._output = inputs[0].name, outputs[0].name

    @torch.inference_mode()
    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        result = self.model.run(**{self._input: rows.float().contiguous()})[self._output]
        return torch.from_numpy(result).reshape(hidden_states.shape).to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return repr(self.model)
