#!/usr/bin/env python3
"""moec beside transformers (eager, the same weights, the same number of threads) on examples/bard.

    bard.py BUILD CHECKPOINT [--rounds N] [--threads N]

Both are timed in turn within each round, so that a slow minute of the machine hits both; what counts is the ratio of the
medians. moec is called through its Python module, crates/moec/python; transformers in float32, eager attention, with its cache.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "crates/moec/python"))

import moec  # noqa: E402

PREFILL = 128
DECODE = 64


class Moec:
    def __init__(self, build, threads):
        self.session = moec.load(build, threads=threads).session(PREFILL + DECODE)

    def step(self, ids):
        return int(self.session.step(ids).argmax())

    def run(self, prompt):
        self.session.reset()
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

    ours = Moec(arguments.build, threads)
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
