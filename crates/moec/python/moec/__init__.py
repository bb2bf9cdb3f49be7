"""moec: models of mixtures of experts, compiled to native libraries.

    import moec

    build = moec.compile("layer.moe", weights="checkpoint/")     # runs the compiler; or a folder that it wrote before
    model = moec.load(build)
    y = model.run(x=x)["y"]                                       # NumPy in and out

    with model.session(max_tokens=256) as session:                # one sequence, with its caches
        session.run(ids=prompt)
        logits = session.run(ids=[next_token])["logits"]

    logits = model.step_together([(one, [5]), (another, [7, 8])])  # several sequences in one pass, each at its own position
    branch = session.fork(12)                                      # another sequence, with the first 12 positions of this one

Inputs are NumPy arrays, or anything that NumPy takes without copying (`__dlpack__`, the array interface): torch tensors on
the CPU, for one. They are read in place where their type and layout fit. Other Python threads run during a call.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Mapping, Sequence

import numpy as np

from ._native import DEVICES, DTYPES, LEVELS, CacheFullError, Library, MoecError, Options, Tensor, Turn

__all__ = ["CacheFullError", "Model", "MoecError", "Port", "Session", "compile", "load"]

#: The version of `build.json` that this module reads.
VERSION = 1


@dataclass(frozen=True)
class Port:
    """An input or output: its row's axes and, in front of them, the positions of a call where it has any."""

    name: str
    dtype: str
    positions: bool
    axes: tuple[tuple[str, int], ...]

    def shape(self, positions: int) -> tuple[int, ...]:
        sizes = tuple(size for _, size in self.axes)
        return (positions, *sizes) if self.positions else sizes

    def __str__(self) -> str:
        axes = [f"{axis}={size}" for axis, size in self.axes]
        return f"{self.name}: {self.dtype}[{', '.join(['positions', *axes] if self.positions else axes)}]"


def compile(
    spec: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Runs `moec build` and returns the folder that it wrote: `output`, else one beside the spec with its name and `.build`.

    `settings` are configuration values (`--set`); `options` further words for the command line, such as `"--quant", "int8"`.
    Raises `MoecError` with the compiler's report.
    """
    spec = Path(spec)
    folder = Path(output) if output is not None else spec.with_suffix(".build")
    command = [_compiler(), "build", str(spec), "-o", str(folder)]
    if weights is not None:
        command += ["--weights", str(weights)]
    for name, value in (settings or {}).items():
        spelled = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["--set", f"{name}={spelled}"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True)
    if ended.returncode != 0:
        raise MoecError(ended.stderr.strip() or f"moec ended with {ended.returncode}")
    return folder


def _compiler() -> str:
    """The `moec` of $MOEC, of this Python, or of the path."""
    named = os.environ.get("MOEC")
    beside = Path(sysconfig.get_path("scripts")) / "moec"
    found = named or (str(beside) if beside.exists() else shutil.which("moec"))
    if not found:
        raise MoecError("the command `moec` is not on the path: install it, or name it in $MOEC")
    return found


def load(
    build: str | os.PathLike[str], *, threads: int = 0, level: str = "best", device: str = "auto", cache_mib: int = 0
) -> Model:
    """Opens the model in a folder that `moec build` wrote with weights.

    `threads` 0 takes as many as there are CPUs; `device` is `auto`, `cpu` or `cuda`. `cache_mib` is for the caches of all
    sessions together, 0 is no limit; a call that finds no room raises `CacheFullError`.
    """
    return Model(build, threads=threads, level=level, device=device, cache_mib=cache_mib)


class Model:
    """A compiled model with its weights, which are mapped from the file. May be used by any number of threads."""

    def __init__(
        self,
        build: str | os.PathLike[str],
        *,
        threads: int = 0,
        level: str = "best",
        device: str = "auto",
        cache_mib: int = 0,
    ) -> None:
        folder = Path(build)
        self._handle = ctypes.c_void_p()
        try:
            about = json.loads((folder / "build.json").read_text())
        except OSError as error:
            raise MoecError(f"{folder} is no folder that `moec build` wrote: {error.strerror}: build.json") from None
        if about["version"] != VERSION:
            made = f"version {about['version']}, of moec {about['moec']}"
            raise MoecError(f"{folder}/build.json has {made}, and this module reads version {VERSION}")
        if not about["weights"]:
            raise MoecError(f"{folder} was built without weights: give `weights` to moec.compile, or --weights to moec build")
        if level not in LEVELS:
            raise MoecError(f"no level `{level}`: one of {', '.join(LEVELS)}")
        if device not in DEVICES:
            raise MoecError(f"no device `{device}`: one of {', '.join(DEVICES)}")
        self.name: str = about["model"]
        self.inputs = _ports(about["inputs"])
        self.outputs = _ports(about["outputs"])
        self.vocabulary: int | None = about["vocabulary"]
        self._library = Library(folder / f"lib{self.name}.so", self.name)
        size = ctypes.sizeof(Options)
        chosen = {"level": LEVELS[level], "device": DEVICES[device], "cache_mib": cache_mib}
        options = Options(struct_size=size, threads=threads, **chosen)
        weights = os.fsencode(folder / f"{self.name}.weights")
        self._library.call("open", weights, ctypes.byref(options), ctypes.byref(self._handle))

    @property
    def level(self) -> str:
        """The instruction set in use: `scalar`, `avx2`, …; `cuda` on a GPU."""
        return self._library.function("level")(self._handle).decode()

    @property
    def threads(self) -> int:
        """The most threads that a call uses."""
        return int(self._library.function("threads")(self._handle))

    @property
    def cache_bytes(self) -> int:
        """Bytes that the caches of all sessions take now."""
        return int(self._library.function("cache_bytes")(self._handle))

    def session(self, max_tokens: int) -> Session:
        """A sequence at position 0, with room for so many."""
        return Session(self, max_tokens)

    def run(self, outputs: Sequence[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """One call in a session of its own; see `Session.run`."""
        given = [np.asarray(inputs[port.name]) for port in self.inputs.values() if port.positions and port.name in inputs]
        positions = max([len(array) for array in given if array.ndim > 0], default=1)
        with self.session(max(positions, 1)) as session:
            return session.run(outputs, **inputs)

    def step_together(self, turns: Sequence[tuple[Session, Any]]) -> np.ndarray:
        """`Session.step` for several sessions at once, each at its own position: what is read of the weights serves all.

        A turn is a session of this model and its new tokens, one or a whole prompt. Returns the logits of what follows the
        last token of each: float32 [turns, vocabulary]. Either all turns are done, or none.
        """
        vocabulary = _vocabulary(self)
        ids = [_tokens(tokens) for _, tokens in turns]
        logits = np.empty((len(turns), vocabulary), np.float32)
        raw = (Turn * len(turns))()
        for at, (session, _) in enumerate(turns):
            raw[at] = Turn(session._open(), ids[at].ctypes.data, len(ids[at]), logits[at].ctypes.data)
        self._library.call("step_batch", self._handle, raw, ctypes.c_size_t(len(turns)))
        return logits

    def __repr__(self) -> str:
        ports = lambda of: ", ".join(map(str, of.values()))
        return f"<moec model {self.name}: ({ports(self.inputs)}) -> ({ports(self.outputs)}), {self.level}>"

    def __del__(self) -> None:
        if self._handle:
            self._library.function("close")(self._handle)


class Session:
    """One sequence: its positions and caches. One call at a time. Free it with `close`, or use it in a `with`."""

    def __init__(self, model: Model, max_tokens: int) -> None:
        self._handle = ctypes.c_void_p()
        self._model = model
        if max_tokens < 1:
            raise MoecError(f"a session has room for at least one position, not {max_tokens}")
        model._library.call("session_new", model._handle, ctypes.c_size_t(max_tokens), ctypes.byref(self._handle))

    def fork(self, position: int | None = None) -> Session:
        """Another session at an earlier position of this one, or at the present: what they have in common is computed and kept
        once. A model that keeps states can be forked at the present position only."""
        at = self.position if position is None else position
        if at < 0:
            raise MoecError(f"a position is 0 or more, not {at}")
        fork = Session.__new__(Session)
        fork._handle, fork._model = ctypes.c_void_p(), self._model
        self._model._library.call("session_fork", self._open(), ctypes.c_size_t(at), ctypes.byref(fork._handle))
        return fork

    @property
    def position(self) -> int:
        """How many positions the sequence has so far."""
        return int(self._model._library.function("session_position")(self._open()))

    def reset(self) -> None:
        """Back to position 0."""
        self._model._library.function("session_reset")(self._open())

    def run(self, outputs: Sequence[str] | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """Appends positions: every input by its name, all with as many positions. Returns the outputs asked for, or all."""
        model = self._model
        arrays, positions = _inputs(model, inputs)
        wanted = list(model.outputs) if outputs is None else list(outputs)
        for name in wanted:
            if name not in model.outputs:
                raise MoecError(f"{model.name} has no output `{name}`: it has {', '.join(model.outputs)}")
        results = {name: np.empty(model.outputs[name].shape(positions), DTYPES[model.outputs[name].dtype][1]) for name in wanted}
        raw_in = [Tensor.over(name, model.inputs[name].dtype, array) for name, array in arrays.items()]
        raw_out = [Tensor.over(name, model.outputs[name].dtype, array) for name, array in results.items()]
        ins, outs = (Tensor * len(raw_in))(*raw_in), (Tensor * len(raw_out))(*raw_out)
        sizes = ctypes.c_size_t(len(raw_in)), ctypes.c_size_t(len(raw_out))
        model._library.call("session_run", self._open(), ins, sizes[0], outs, sizes[1])
        return results

    def step(self, ids: Any) -> np.ndarray:
        """Of a model from tokens to logits: appends tokens; the logits of what follows the last, float32 [vocabulary]."""
        model = self._model
        ids, logits = _tokens(ids), np.empty(_vocabulary(model), np.float32)
        pointers = ctypes.c_void_p(ids.ctypes.data), ctypes.c_void_p(logits.ctypes.data)
        model._library.call("step", self._open(), pointers[0], ctypes.c_size_t(len(ids)), pointers[1])
        return logits

    def close(self) -> None:
        if self._handle:
            self._model._library.function("session_free")(self._handle)
            self._handle = ctypes.c_void_p()

    def _open(self) -> ctypes.c_void_p:
        if not self._handle:
            raise MoecError("the session is closed")
        return self._handle

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _vocabulary(model: Model) -> int:
    if model.vocabulary is None:
        raise MoecError(f"{model.name} is no model from tokens to logits: use run")
    return model.vocabulary


def _tokens(ids: Any) -> np.ndarray:
    return np.ascontiguousarray(ids, np.int32).reshape(-1)


def _ports(described: list[dict[str, Any]]) -> dict[str, Port]:
    axes = lambda one: tuple((axis, size) for axis, size in one["axes"])
    return {one["name"]: Port(one["name"], one["dtype"], one["positions"], axes(one)) for one in described}


def _inputs(model: Model, given: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """The inputs as arrays that C can read, in place where they fit; and the positions of the call."""
    for name in given:
        if name not in model.inputs:
            raise MoecError(f"{model.name} has no input `{name}`: it takes {', '.join(map(str, model.inputs.values()))}")
    arrays: dict[str, np.ndarray] = {}
    positions: int | None = None
    for name, port in model.inputs.items():
        if name not in given:
            raise MoecError(f"the input {port} is missing")
        array = _array(given[name], port)
        if array.ndim != len(port.axes) + port.positions:
            raise MoecError(f"the input {port} has {len(port.axes) + port.positions} axes, not {array.ndim}")
        if port.positions:
            positions = len(array) if positions is None else positions
            if len(array) != positions:
                raise MoecError(f"the input {port} has {len(array)} positions, and another one {positions}")
        if array.shape != port.shape(len(array) if port.positions else 0):
            raise MoecError(f"the input {port} has the shape {list(array.shape)}")
        arrays[name] = array
    return arrays, 1 if positions is None else positions


def _array(value: Any, port: Port) -> np.ndarray:
    """`value` as a contiguous array of the port's type. Integers of another width are taken, numbers of another kind are not."""
    dtype = DTYPES[port.dtype][1]
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            raise MoecError(f"the input {port} cannot be read by NumPy: {error}") from None
    array = np.asarray(value)
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    same_kind = array.dtype.kind in "iu" and dtype.kind == "i" or array.dtype.kind == "f" and dtype.kind == "f"
    if not same_kind and array.size > 0:
        raise MoecError(f"the input {port} is given as {array.dtype}")
    converted = array.astype(dtype)
    if dtype.kind == "i" and not np.array_equal(converted, array):
        raise MoecError(f"the input {port} holds a number that i32 cannot")
    return np.ascontiguousarray(converted)


def _main() -> None:
    """`python -m moec …` is the compiler."""
    os.execv(_compiler(), ["moec", *sys.argv[1:]])
