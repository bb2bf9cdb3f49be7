"""The peers. Each module here has one class derived from Peer and is named in REGISTRY by module, venv and class."""
from __future__ import annotations

import importlib
import os
from typing import Callable

import numpy as np

from workloads import Workload, Weights

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOME = os.environ.get("BENCH_HOME", os.path.join(HERE, "..", "..", "..", "target", "peers"))
THREADS = int(os.environ.get("BENCH_THREADS", os.cpu_count() or 1))


class Peer:
    """One implementation of the layer. Weights are laid out once per (shape, dtype) and kept; prepare only sets up inputs."""

    dtypes: dict[str, str] = {}                   # ours -> the peer's name for what it runs
    storage: dict[str, float] = {}                # bytes a weight with scales, where not the nominal size

    def __init__(self, variant: str = ""):
        self.variant = variant
        self._loaded = None

    def supports(self, w: Workload) -> bool:
        return w.dtype in self.dtypes

    def load(self, w: Workload, weights: Weights) -> None:
        """Lay out w.copies copies of the layer in w.dtype."""
        raise NotImplementedError

    def prepare(self, w: Workload) -> Callable[[int], None]:
        """-> run(i), which computes w.calls[i] and leaves the result for output()."""
        raise NotImplementedError

    def output(self) -> np.ndarray:
        """float32 [tokens, hidden] of the latest run."""
        raise NotImplementedError

    def ensure_loaded(self, w: Workload) -> None:
        key = (w.shape, w.dtype)
        if self._loaded != key:
            self.load(w, Weights(w.shape))
            self._loaded = key


# name on the command line -> (module, class, venv, variant)
REGISTRY = {
    "torch-eager": ("torch_experts", "TorchExperts", "main", "eager"),
    "torch-batched": ("torch_experts", "TorchExperts", "main", "batched_mm"),
    "torch-grouped": ("torch_experts", "TorchExperts", "main", "grouped_mm"),
    "torch-grouped-compiled": ("torch_experts", "TorchExperts", "main", "grouped_mm+compile"),
    "kt-kernel": ("kt_kernel_moe", "KtKernel", "main", ""),
    "kt-kernel-1": ("kt_kernel_moe", "KtKernel", "main", "1"),        # one worker: its other threads spin, so on 2 cores this can win
    "ggml": ("ggml_layer", "GgmlLayer", "main", ""),
    "vllm-cpu": ("vllm_cpu", "VllmCpu", "vllm", ""),
    "sgl-cpu": ("vllm_cpu", "SglCpu", "vllm", ""),
    "moec": ("moec", "Moec", "main", ""),
}


def create(name: str) -> Peer:
    module, cls, _, variant = REGISTRY[name]
    return getattr(importlib.import_module(f"peers.{module}"), cls)(variant)
