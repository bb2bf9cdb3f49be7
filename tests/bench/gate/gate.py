#!/usr/bin/env python3
"""A gate that nobody has published (examples/gates/grouped_softplus.moe, 37 experts, 5 chosen) beside softmax and its largest, in a
layer of the same size; with one thread and with all.

    gate.py [--tokens 1,16,64,512] [--rounds N]
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measured  # noqa: E402

SPECS = {
    "own": measured.REPOSITORY / "examples/gates/grouped_softplus.moe",
    "softmax": measured.REPOSITORY / "tests/bench/gate/softmax.moe",
}
SIZES = {"D": 2048, "F": 1024}
EXPERTS = ["grouped_gemm"]

HEAD = """# What a gate of one's own costs

Made by `./dev bench gate` (tests/bench/gate/gate.py): a layer of 37 experts of 2048 by 1024 in int8, of which each token goes to 5. *Own*:
examples/gates/grouped_softplus.moe, which nobody has published; *softmax*: softmax over the scores, and the largest. Both take turns;
milliseconds, the best of the rounds. *All but experts*: scores, choice, sorting by expert and the weighed sum; that is where the two differ."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="1,16,64,512")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tokens = [int(number) for number in arguments.tokens.split(",")]
    all_threads = len(os.sched_getaffinity(0))
    best = {}
    for _ in range(arguments.rounds):
        for threads in sorted({1, all_threads}):
            for name, spec in SPECS.items():
                for roof in measured.roofs(spec, SIZES, tokens, "int8", threads):
                    whole = measured.measured(roof)
                    rest = whole - measured.measured(roof, EXPERTS)
                    for what, seconds in (("whole", whole), ("rest", rest)):
                        key = (what, roof["tokens"], threads, name)
                        best[key] = min(best.get(key, seconds), seconds)
    print(f"{HEAD}\n\n{measured.now()}; {arguments.rounds} rounds.\n")
    print("| tokens | threads | layer, own | softmax | own / softmax | all but experts, own | softmax | own / softmax | threads gain, own | softmax |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for number in tokens:
        for threads in sorted({1, all_threads}):
            cells = []
            for what in ("whole", "rest"):
                own, softmax = (best[what, number, threads, name] for name in SPECS)
                cells += [f"{1e3 * own:.3g}", f"{1e3 * softmax:.3g}", f"{own / softmax:.2f}"]
            gains = [f"{best['whole', number, 1, name] / best['whole', number, threads, name]:.2f} x" for name in SPECS]
            print(f"| {number} | {threads} | {' | '.join(cells)} | {' | '.join(gains)} |")


main()
