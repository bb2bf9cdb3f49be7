"""Ours: layer.moe, compiled by `moec build` for the shape and the format, called through its C interface."""
import ctypes
import json
import os
import shutil
import subprocess

import numpy as np

from peers import HERE, HOME, THREADS, Peer
from workloads import Shape, Weights

COMPILER = os.environ.get("MOEC", os.path.join(HERE, "..", "..", "..", "target", "release", "moec"))
F32, I32 = 0, 3


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("threads", ctypes.c_int32), ("level", ctypes.c_int32),
                ("verify_checksums", ctypes.c_int32), ("reserved", ctypes.c_int32 * 5)]


class Tensor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32),
                ("shape", ctypes.c_int64 * 8), ("reserved", ctypes.c_uint64 * 5)]


def tensor(name: str, array: np.ndarray) -> Tensor:
    kind = {np.dtype(np.float32): F32, np.dtype(np.int32): I32}[array.dtype]
    shape = (ctypes.c_int64 * 8)(*array.shape)
    return Tensor(name.encode(), array.ctypes.data, kind, array.ndim, shape, (ctypes.c_uint64 * 5)())


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
            library = ctypes.CDLL(os.path.join(build, "liblayer.so"))
            library.layer_error_message.restype = ctypes.c_char_p
            model = ctypes.c_void_p()
            options = Options(ctypes.sizeof(Options), THREADS, 0, 2, (ctypes.c_int32 * 5)())
            self.call(library, "open", os.path.join(build, "layer.weights").encode(), ctypes.byref(options),
                      ctypes.byref(model))
            self.models.append((library, model))

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

    @staticmethod
    def call(library, function, *arguments):
        error = ctypes.c_void_p()
        if getattr(library, f"layer_{function}")(*arguments, ctypes.byref(error)):
            raise RuntimeError(library.layer_error_message(error).decode())

    def prepare(self, w):
        for session in getattr(self, "sessions", []):
            session[0].layer_session_free(session[1])
        self.sessions = []
        for library, model in self.models:
            session = ctypes.c_void_p()
            self.call(library, "session_new", model, ctypes.c_size_t(w.tokens), ctypes.byref(session))
            self.sessions.append((library, session))
        self.y = np.zeros((w.tokens, w.shape.hidden), np.float32)
        outputs = (Tensor * 1)(tensor("y", self.y))
        inputs = [(Tensor * 3)(tensor("x", w.x), tensor("chosen", c.ids), tensor("factors", c.scale)) for c in w.calls]

        def run(i, keep=w):
            library, session = self.sessions[w.calls[i].copy]
            library.layer_session_reset(session)
            self.call(library, "session_run", session, inputs[i], ctypes.c_size_t(3), outputs, ctypes.c_size_t(1))
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
