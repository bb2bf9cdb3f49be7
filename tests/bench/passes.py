#!/usr/bin/env python3
"""What every pass is worth: each is left out alone, and prefill and decode are timed with and without it.

    passes.py [--moec PATH] [--work FOLDER] [--rounds N] [--threads N]     the tables on standard output

All builds of a model are timed in turn within each round, so that a slow minute hits all of them; what counts is the ratio of
what one in ten stays below: others on the machine can only slow things down. Weights of the decoder of medium size are drawn by tests/large/random_olmoe.py; the others are examples.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "crates/moec/python"))

import numpy as np  # noqa: E402

import moec  # noqa: E402

DECODE = 24
MEDIUM = ["--layers", "2", "--width", "1024", "--hidden", "512", "--experts", "32", "--heads", "8", "--vocabulary", "16384"]

HEAD = """# What every pass is worth

Made by `./dev bench passes` (tests/bench/passes.py): each pass is left out alone (`moec build --disable-pass`), and all builds of
a model take turns within each round. The figures are *time without the pass / time with all passes*, of what one time in
ten stays below: above 1, the pass saves time. The machine is shared and swings; what is within 3 % of 1 is noise. *Steps*: how many more the plan has
without it."""


@dataclass
class Model:
    name: str
    what: str
    spec: Path
    weights: Path
    prefill: int
    options: list = field(default_factory=list)


def models(work, compiler):
    medium = work / "medium"
    if not (medium / "config.json").exists():
        make = [sys.executable, str(REPOSITORY / "tests/large/random_olmoe.py"), str(medium), *MEDIUM]
        subprocess.run(make, check=True, stdout=sys.stderr)
    specs = {}
    for name, checkpoint in (("medium", medium), ("bard", REPOSITORY / "examples/bard")):
        specs[name] = work / f"{name}.moe"
        run([compiler, "import", str(checkpoint), "--force", "-o", str(specs[name])])
    shape = "OLMoE with 2 layers of 1024, 32 experts of 512, 8 chosen"
    bard, images = REPOSITORY / "examples/bard", REPOSITORY / "examples/images"
    return [
        Model("medium", f"{shape}, drawn weights in bf16", specs["medium"], medium, 256, ["--quant", "bf16"]),
        Model("medium8", f"{shape}, drawn weights in int8", specs["medium"], medium, 256, ["--quant", "int8"]),
        Model("bard", "examples/bard, f32", specs["bard"], bard, 128),
        Model("images", "examples/images, f32, a batch of 256 and one of 1", images / "images.moe", images, 256),
    ]


UNSUPPORTED = 3


class Needed(Exception):
    """Without the pass there is no plan."""


def run(command):
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode == UNSUPPORTED:
        raise Needed
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ended.stderr}")
    return ended.stdout


class Build:
    """One model without one pass, or with all."""

    def __init__(self, model, without, work, compiler, threads):
        leave = ["--disable-pass", without] if without else []
        common = [str(model.spec), "--weights", str(model.weights), *model.options, *leave]
        self.explained = json.loads(run([compiler, "explain", *common, "--json"]))
        folder = work / f"{model.name}-{without or 'all'}"
        if not (folder / "build.json").exists():
            run([compiler, "build", *common, "-o", str(folder)])
        self.model = moec.load(folder, threads=threads)
        self.session = self.model.session(model.prefill + DECODE)
        self.prefill = model.prefill
        self.times = {"prefill": [], "decode": []}

    @property
    def steps(self):
        return sum(self.explained["plan"]["steps"].values())

    def arguments(self, positions):
        """Inputs of so many positions, the same in every round."""
        random = np.random.default_rng(7)
        if self.model.vocabulary is not None:
            return random.integers(0, self.model.vocabulary, positions, np.int32)
        return {port.name: random.random(port.shape(positions), np.float32) for port in self.model.inputs.values()}

    def call(self, given):
        if self.model.vocabulary is not None:
            self.session.step(given)
        else:
            self.session.run(**given)

    def round(self, keep):
        many, one = self.arguments(self.prefill), self.arguments(1)
        self.session.reset()
        started = time.perf_counter()
        self.call(many)
        prefilled = time.perf_counter()
        tokens = []
        for _ in range(DECODE):
            before = time.perf_counter()
            self.call(one)
            tokens.append(time.perf_counter() - before)
        if keep:
            self.times["prefill"].append(prefilled - started)
            self.times["decode"] += tokens

    def usual(self, what):
        """What one time in ten stays below: the very least is luck."""
        return sorted(self.times[what])[len(self.times[what]) // 10]


def measured(model, passes, work, compiler, rounds, threads):
    builds = {}
    for name in [None, *passes]:
        try:
            builds[name] = Build(model, name, work, compiler, threads)
        except Needed:
            print(f"{model.name} without {name}: cannot be lowered", file=sys.stderr)
    for number in range(rounds + 1):
        # Neighbours differ from round to round: who runs after whom leaves traces in the caches.
        order = list(builds.values())
        for build in order[number % len(order):] + order[:number % len(order)]:
            build.round(keep=number > 0)
    return builds


def table(model, builds, summaries):
    whole = builds[None]
    each = ", ".join(f"{what} {1e3 * whole.usual(what):.3g} ms" for what in ("prefill", "decode"))
    print(f"\n## {model.name}: {model.what}\n\nAll passes: {whole.steps} steps; {each} ({model.prefill} positions, then one at a time).\n")
    print("| left out | what it does | steps | prefill | decode |\n|---|---|---|---|---|")
    for name, summary in summaries.items():
        build = builds.get(name)
        if not build:
            print(f"| {name} | {summary} | | cannot be lowered without it | |")
            continue
        ratios = [f"{build.usual(what) / whole.usual(what):.2f}" for what in ("prefill", "decode")]
        print(f"| {name} | {summary} | +{build.steps - whole.steps} | {ratios[0]} | {ratios[1]} |")


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moec", default=str(REPOSITORY / "target/release/moec"))
    parser.add_argument("--work", type=Path, default=REPOSITORY / "target/bench/passes")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--models", default="", help="some of them, by their names")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(HEAD)
    print(f"\n{datetime.datetime.now():%Y-%m-%d %H:%M}, {cpu()}, {arguments.threads} threads, {arguments.rounds} rounds.")
    wanted = arguments.models.split(",") if arguments.models else None
    for model in models(arguments.work, arguments.moec):
        if wanted and model.name not in wanted:
            continue
        known = json.loads(run([arguments.moec, "explain", str(model.spec), "--weights", str(model.weights), "--json"]))["passes"]
        summaries = {one["name"]: one["summary"] for one in known}
        builds = measured(model, summaries, arguments.work, arguments.moec, arguments.rounds, arguments.threads)
        table(model, builds, summaries)
        sys.stdout.flush()


main()
