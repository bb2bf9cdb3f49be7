"""Ours: layer.moe, compiled by `moec build` for the shape and the format, called through its C interface."""
import ctypes
import json
import os
import shutil
import subprocess
import sys

import numpy as np

from peers import HERE, HOME, THREADS, Peer
from workloads import Shape, Weights

REPOSITORY = os.path.join(HERE, "..", "..", "..")
sys.path.insert(0, os.path.join(REPOSITORY, "crates", "moec", "python"))

import moec  # noqa: E402
from moec._native import Tensor  # noqa: E402

COMPILER = os.environ.get("MOEC", os.path.join(REPOSITORY, "target", "release", "moec"))


class Moec(Peer):
    dtypes = {"bf16": "bf16", "int8": "int8", "int4": "int4-128"}
    # What `moec build` is told for the format.
    options = {"bf16": ["--quant", "bf16"], "int8": ["--quant", "int8"], "int4": ["--quant", "int4-128"]}

    def load(self, w, weights):
        self.models = []
        for copy in range(w.copies):
            build = os.path.join(HOME, "moec", f"{w.shape.name}-{w.dtype}-{copy}")
            if not os.path.exists(os.path.join(build, "layer.weights")):
                self.build(w, weights, copy, build)
            self.models.append(moec.load(build, threads=THREADS))

    def build(self, w, weights: Weights, copy: int, build: str):
        checkpoint = build + "-checkpoint"
        shutil.rmtree(checkpoint, ignore_errors=True)
        os.makedirs(checkpoint)
        write_checkpoint(os.path.join(checkpoint, "model.safetensors"), w.shape, weights, copy)
        sizes = {"E": w.shape.experts, "K": w.shape.top_k, "D": w.shape.hidden, "F": w.shape.inner}
        sets = [word for name, size in sizes.items() for word in ("--set", f"{name}={size}")]
        command = [COMPILER, "build", os.path.join(HERE, "layer.moe"), *sets, "--weights", checkpoint, "-o", build]
        subprocess.run(command + self.options[w.dtype], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(checkpoint)

    def prepare(self, w):
        for session in getattr(self, "sessions", []):
            session.close()
        self.sessions = [model.session(w.tokens) for model in self.models]
        self.y = np.zeros((w.tokens, w.shape.hidden), np.float32)
        # The tensors are made beforehand: for one token, checking them each time would be a part of what is timed.
        outputs = (Tensor * 1)(Tensor.over("y", "f32", self.y))
        inputs = [(Tensor * 3)(Tensor.over("x", "f32", w.x), Tensor.over("chosen", "i32", c.ids), Tensor.over("factors", "f32", c.scale))
                  for c in w.calls]
        counts = ctypes.c_size_t(3), ctypes.c_size_t(1)

        def run(i, keep=w):
            session = self.sessions[w.calls[i].copy]
            session.reset()
            session._model._library.call("session_run", session._handle, inputs[i], counts[0], outputs, counts[1])
        return run

    def output(self):
        return self.y


def write_checkpoint(path: str, shape: Shape, weights: Weights, copy: int):
    """A safetensors file of bf16 tensors, one expert's matrix in memory at a time."""
    rows = {"gate": (shape.inner, shape.hidden), "up": (shape.inner, shape.hidden), "down": (shape.hidden, shape.inner)}
    names = [(which, expert) for which in rows for expert in range(shape.experts)]
    size = 2 * shape.hidden * shape.inner
    header = {f"{which}.{expert}": {"dtype": "BF16", "shape": rows[which], "data_offsets": [i * size, (i + 1) * size]}
              for i, (which, expert) in enumerate(names)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for which, expert in names:
            file.write(weights.matrix(copy, which, expert).tobytes())
