#!/usr/bin/env python3
"""moec beside transformers (eager, the same weights, the same number of threads) on examples/bard.

    bard.py BUILD CHECKPOINT [--rounds N] [--threads N]

Both are timed in turn within each round, so that a slow minute of the machine hits both; what counts is the ratio of the
medians. moec is called through its C interface by ctypes; transformers in float32, eager attention, with its cache.
"""

import argparse
import ctypes
import statistics
import time
from pathlib import Path

import numpy as np

PREFILL = 128
DECODE = 64


class Moec:
    """A library that `moec build` made, for as much as is timed here."""

    def __init__(self, build, name, vocabulary, threads):
        class Options(ctypes.Structure):
            _fields_ = [
                ("struct_size", ctypes.c_size_t),
                ("threads", ctypes.c_int32),
                ("level", ctypes.c_int32),
                ("verify_checksums", ctypes.c_int32),
                ("reserved", ctypes.c_int32 * 5),
            ]

        self.library = ctypes.CDLL(str(Path(build).resolve() / f"lib{name}.so"))
        self.name = name
        options = Options(ctypes.sizeof(Options), threads, 0, 0, (ctypes.c_int32 * 5)())
        self.model = ctypes.c_void_p()
        self.session = ctypes.c_void_p()
        self.error = ctypes.c_void_p()
        self.function("error_message").restype = ctypes.c_char_p
        weights = str(Path(build) / f"{name}.weights").encode()
        self.call("open", weights, ctypes.byref(options), ctypes.byref(self.model))
        self.call("session_new", self.model, ctypes.c_size_t(PREFILL + DECODE), ctypes.byref(self.session))
        self.logits = np.zeros(vocabulary, np.float32)

    def function(self, name):
        return getattr(self.library, f"{self.name}_{name}")

    def call(self, name, *arguments):
        if self.function(name)(*arguments, ctypes.byref(self.error)) != 0:
            raise SystemExit(self.function("error_message")(self.error).decode())

    def step(self, ids):
        ids = np.ascontiguousarray(ids, np.int32)
        pointer = ids.ctypes.data_as(ctypes.c_void_p)
        self.call("step", self.session, pointer, ctypes.c_size_t(len(ids)), self.logits.ctypes.data_as(ctypes.c_void_p))
        return int(self.logits.argmax())

    def run(self, prompt):
        self.function("session_reset")(self.session)
        start = time.perf_counter()
        token = self.step(prompt)
        prefilled = time.perf_counter()
        tokens = [token]
        for _ in range(DECODE - 1):
            tokens.append(self.step([tokens[-1]]))
        return prefilled - start, (time.perf_counter() - prefilled) / (DECODE - 1), tokens


class Transformers:
    def __init__(self, checkpoint, threads):
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.torch = torch
        torch.set_num_threads(threads)
        load = AutoModelForCausalLM.from_pretrained
        self.model = load(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()

    def run(self, prompt):
        torch = self.torch
        with torch.inference_mode():
            start = time.perf_counter()
            out = self.model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
            tokens = [int(out.logits[0, -1].argmax())]
            prefilled = time.perf_counter()
            for _ in range(DECODE - 1):
                out = self.model(torch.tensor([[tokens[-1]]]), past_key_values=out.past_key_values, use_cache=True)
                tokens.append(int(out.logits[0, -1].argmax()))
        return prefilled - start, (time.perf_counter() - prefilled) / (DECODE - 1), tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as the machine gives this process")
    arguments = parser.parse_args()
    import os

    threads = arguments.threads or len(os.sched_getaffinity(0))
    text = "ROMEO.\nBut soft, what light through yonder window breaks? It is the east, and Juliet is the sun. Arise, fair sun, and kill the envious moon"
    prompt = list(text.encode()[:PREFILL])
    assert len(prompt) == PREFILL

    ours = Moec(arguments.build, "bard", 256, threads)
    theirs = Transformers(arguments.checkpoint, threads)
    # Once unmeasured: caches, lazy set-up, and that both say the same.
    if ours.run(prompt)[2] != theirs.run(prompt)[2]:
        raise SystemExit("moec and transformers disagree on the tokens")

    rounds = [(ours.run(prompt)[:2], theirs.run(prompt)[:2]) for _ in range(arguments.rounds)]
    print(f"examples/bard, {threads} threads, {arguments.rounds} interleaved rounds; median (best) in ms")
    for at, what in enumerate([f"prefill of {PREFILL} tokens", "decode, one token"]):
        a, b = ([1e3 * side[at] for side in pair] for pair in zip(*rounds))
        show = lambda times: f"{statistics.median(times):8.3f} ({min(times):.3f})"
        ratio, best = statistics.median(b) / statistics.median(a), min(b) / min(a)
        print(f"  {what:22} moec {show(a)}   transformers {show(b)}   ratio {ratio:.1f} (best {best:.1f})")


if __name__ == "__main__":
    main()
