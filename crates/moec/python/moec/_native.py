"""The C interface of a library that `moec build` made, by ctypes. ctypes lets go of the interpreter lock during calls."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

MAX_RANK = 8

#: Element types by their names, as NumPy has them; bf16 by its bits.
DTYPES: dict[str, tuple[int, np.dtype]] = {
    "f32": (0, np.dtype(np.float32)),
    "bf16": (1, np.dtype(np.uint16)),
    "f16": (2, np.dtype(np.float16)),
    "i32": (3, np.dtype(np.int32)),
    "bool": (4, np.dtype(np.bool_)),
}

LEVELS = {"best": 0, "scalar": 1, "avx2": 2, "avx512": 3, "avx512_dot": 4, "amx": 5}
DEVICES = {"auto": 0, "cpu": 1, "cuda": 2}


class Options(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("level", ctypes.c_int32),
        ("verify_checksums", ctypes.c_int32),
        ("cache_mib", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("reserved", ctypes.c_int32 * 3),
    ]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
        ("reserved", ctypes.c_uint64 * 5),
    ]

    @classmethod
    def over(cls, name: str, dtype: str, array: np.ndarray) -> Tensor:
        """A view of `array`, which must live as long."""
        shape = (ctypes.c_int64 * MAX_RANK)(*array.shape)
        return cls(name.encode(), array.ctypes.data, DTYPES[dtype][0], array.ndim, shape)


class Turn(ctypes.Structure):
    _fields_ = [
        ("session", ctypes.c_void_p),
        ("ids", ctypes.c_void_p),
        ("n", ctypes.c_size_t),
        ("logits", ctypes.c_void_p),
        ("reserved", ctypes.c_uint64 * 4),
    ]


class MoecError(Exception):
    """What a compiled model, or the compiler, has to say against a call."""


class CacheFullError(MoecError):
    """The caches' budget is used up: close, reset or step fewer sessions."""


#: The interface that this module speaks: `NAME_ABI` of the header.
ABI = 1

#: `NAME_CACHE_FULL`
CACHE_FULL = 9


class Library:
    """The functions of one model, by their names without the prefix."""

    def __init__(self, path: Path, model: str) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise MoecError(f"{path} cannot be loaded: {error}") from None
        self._model = model
        if (found := self.function("abi")()) != ABI:
            raise MoecError(f"{path} has version {found} of the interface, and this module calls version {ABI}")
        self.function("error_message").restype = ctypes.c_char_p
        self.function("level").restype = ctypes.c_char_p
        self.function("version").restype = ctypes.c_char_p
        self.function("session_position").restype = ctypes.c_size_t
        self.function("cache_bytes").restype = ctypes.c_size_t
        for name in ("close", "session_free", "error_free"):
            self.function(name).restype = None

    def function(self, name: str) -> Any:
        return getattr(self._library, f"{self._model}_{name}")

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that ends in an error parameter; raises what comes out of that."""
        error = ctypes.c_void_p()
        code = self.function(name)(*arguments, ctypes.byref(error))
        if code != 0:
            message = self.function("error_message")(error).decode()
            self.function("error_free")(error)
            raise (CacheFullError if code == CACHE_FULL else MoecError)(message)
