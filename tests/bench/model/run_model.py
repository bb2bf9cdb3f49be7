#!/usr/bin/env python3
"""A whole model of OLMoE-1B-7B's shape, random weights: a prompt of 512 tokens, then one token at a time. moec beside llama.cpp
and transformers (bf16), in turn within each round, beside what the machine can do in the same minute.

    run_model.py [--layers N] [--formats bf16,int8,int4] [--rounds N] [--json OUT.json]

Tables on standard output. With all 16 layers the checkpoint takes 13.8 GB, and each format that is compared about as much again
at a time; `--layers` takes fewer. The output matrix stays as it is, so that with few layers it weighs more than in the model.
"""
import argparse
import datetime
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.join(HERE, "..", "..", "..")
sys.path[:0] = [os.path.join(HERE, "..", "layers"), os.path.join(REPOSITORY, "crates", "moec", "python")]

import numpy as np  # noqa: E402

import moec  # noqa: E402
from peers import HOME, THREADS  # noqa: E402
from run_layer import Machine, cpu_name  # noqa: E402

COMPILER = os.environ.get("MOEC", os.path.join(REPOSITORY, "target", "release", "moec"))
PREFILL, DECODE = 512, 32
# Ours, llama.cpp's.
FORMATS = {"bf16": ("bf16", "BF16"), "int8": ("int8", "Q8_0"), "int4": ("int4-32", "Q4_0")}


HEAD = """# A whole model beside its peers, on CPU

Made by `./dev bench model` (tests/bench/model): OLMoE-1B-7B's shape with random weights; moec, llama.cpp and, in bf16, transformers
on torch, in turn within each round on the same machine. The machine is shared and swings, so only the ratios hold."""


class Moec:
    name = "moec"

    def __init__(self, folder, layers, ours):
        spec, checkpoint = os.path.join(folder, "olmoe.moe"), os.path.join(folder, "checkpoint")
        self.build = os.path.join(folder, f"build-{ours}")
        subprocess.run([COMPILER, "import", checkpoint, "--force", "-o", spec], check=True, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        subprocess.run([COMPILER, "build", spec, "--weights", checkpoint, "--quant", ours, "-o", self.build],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"  moec: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        started = time.perf_counter()
        model = moec.load(self.build, threads=THREADS)
        opened = time.perf_counter() - started
        self.session = model.session(PREFILL + DECODE)
        tokens = np.random.default_rng(4).integers(0, model.vocabulary, 17)
        first, *later = [self.token(token) for token in tokens]
        self.start = f"{ours}: opened in {1e3 * opened:.1f} ms; first token {1e3 * first:.1f} ms, later ones {1e3 * statistics.median(later):.1f} ms"
        self.prompt = np.random.default_rng(3).integers(0, model.vocabulary, PREFILL)

    def token(self, token):
        """Seconds for one token; which experts it meets is chance, so that it touches weights of its own."""
        started = time.perf_counter()
        self.session.step([int(token)])
        return time.perf_counter() - started

    def round(self):
        self.session.reset()
        started = time.perf_counter()
        logits = self.session.step(self.prompt)
        prefilled = time.perf_counter()
        for _ in range(DECODE):
            logits = self.session.step([int(logits.argmax())])
        return PREFILL / (prefilled - started), DECODE / (time.perf_counter() - prefilled)

    def close(self):
        del self.session
        shutil.rmtree(self.build)


class Llama:
    """llama-bench, a process a round: it loads, warms up and measures."""
    name = "llama.cpp"

    def __init__(self, folder, layers, theirs):
        self.file = os.path.join(folder, f"olmoe-{theirs}.gguf")
        subprocess.run([sys.executable, os.path.join(HERE, "make_gguf.py"), self.file, theirs, str(layers)], check=True)

    def round(self):
        bench = os.path.join(HOME, "build-llama", "bin", "llama-bench")
        command = [bench, "-m", self.file, "-t", str(THREADS), "-p", str(PREFILL), "-n", str(DECODE), "-r", "1", "-o", "json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        tests = json.loads(ended.stdout)
        rate = lambda prompt: next(max(test["samples_ts"]) for test in tests if bool(test["n_prompt"]) == prompt)
        return rate(True), rate(False)

    def close(self):
        os.remove(self.file)


class Torch:
    """transformers on the same checkpoint; experts as the grouped product for a prompt, one by one for a token, which is its best."""
    name = "torch"

    def __init__(self, folder, layers, _):
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
        logging.disable_progress_bar()
        torch.set_num_threads(THREADS)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "checkpoint"), dtype=torch.bfloat16).eval()
        self.prompt = torch.from_numpy(np.random.default_rng(3).integers(0, self.model.config.vocab_size, (1, PREFILL)))

    def round(self):
        with self.torch.inference_mode():
            self.model.set_experts_implementation("grouped_mm")
            started = time.perf_counter()
            out = self.model(self.prompt, use_cache=True, logits_to_keep=1)
            prefilled = time.perf_counter()
            self.model.set_experts_implementation("batched_mm")
            for _ in range(DECODE):
                token = out.logits[:, -1:].argmax(-1)
                out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
            return PREFILL / (prefilled - started), DECODE / (time.perf_counter() - prefilled)

    def close(self):
        del self.model
        gc.collect()


def compare(kind, folder, layers, rounds, machine):
    ours, theirs = FORMATS[kind]
    peers = [Moec(folder, layers, ours), Llama(folder, layers, theirs)]
    if kind == "bf16":
        peers.append(Torch(folder, layers, ours))
    results, probes = {peer.name: [] for peer in peers}, []
    for number in range(rounds + 1):
        probes.append(machine.probe())
        for peer in peers:
            rates = peer.round()
            if number > 0:                      # the first touches the weights
                results[peer.name].append(rates)
    started = peers[0].start
    for peer in peers:
        peer.close()
    best = {name: max(probe[name] for probe in probes) for name in probes[0]}
    return [{"format": kind, "peer": name, "rounds": rates, "machine": best, "start": started} for name, rates in results.items()]


def table(rows):
    """Best and median of tokens a second; ours over each peer's."""
    ours = next(row for row in rows if row["peer"] == "moec")["rounds"]
    for at, what in ((0, f"prefill {PREFILL}"), (1, "decode, one at a time")):
        cells = []
        for row in rows:
            rates = [rate[at] for rate in row["rounds"]]
            cells.append(f"{max(rates):.3g} ({statistics.median(rates):.3g})")
        ratios = [f"{max(rate[at] for rate in ours) / max(rate[at] for rate in row['rounds']):.2f} x {row['peer']}"
                  for row in rows if row["peer"] != "moec"]
        cells += [""] * (3 - len(cells))
        print(f"| {rows[0]['format']} | {what} | " + " | ".join(cells) + f" | {', '.join(ratios)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--formats", default="bf16,int8,int4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    folder = os.path.join(HOME, "model")
    os.makedirs(folder, exist_ok=True)
    random = [sys.executable, os.path.join(REPOSITORY, "tests", "large", "random_olmoe.py"), os.path.join(folder, "checkpoint")]
    subprocess.run([*random, "--layers", str(arguments.layers)], check=True, stdout=sys.stderr)
    print(HEAD)
    print(f"\n## {datetime.datetime.now():%Y-%m-%dT%H:%M}: OLMoE-1B-7B's shape with {arguments.layers} of 16 layers, {cpu_name()}, {THREADS} threads\n")
    print("| format | | moec | llama.cpp | torch | moec is |\n|---|---|---|---|---|---|")
    machine, rows = Machine(), []
    for kind in arguments.formats.split(","):
        new = compare(kind, folder, arguments.layers, arguments.rounds, machine)
        table(new)
        rows += new
    busy = max(row["machine"]["others_busy"] for row in rows)
    print(f"\nTokens a second, best (median) of {arguments.rounds} rounds in turn. Other processes kept up to {busy:.1f} cores busy.")
    print("\nOf a packed model whose file is cached, " + "; ".join(dict.fromkeys(row["start"] for row in rows)) + ".")
    shutil.rmtree(folder)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


main()
