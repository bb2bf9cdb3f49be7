#!/usr/bin/env python3
"""How well `moec explain` predicts: each shape of layer, format and number of tokens, predicted and measured in the same minute.

    roof.py [--shapes A,B,C] [--formats bf16,int8,int4-128] [--tokens 1,4,16,64,512,2048] [--json OUT.json]

Tables on standard output. Weights are drawn; each combination of shape and format takes as much disk and memory as they have.
"""

import argparse
import json
import statistics

import measured

LAYER = measured.REPOSITORY / "tests/bench/layers/layer.moe"
DECODER = measured.REPOSITORY / "crates/moec/templates/decoder.moe"
# Experts, choices, width, width inside an expert, as tests/bench/layers/workloads.py has them.
SHAPES = {
    "A": {"E": 64, "K": 8, "D": 2048, "F": 1024},
    "B": {"E": 128, "K": 8, "D": 2048, "F": 768},
    "C": {"E": 8, "K": 2, "D": 4096, "F": 14336},
}
# A decoder of two layers, for what layers of experts have none of: attention, norms, logits.
WHOLE = {"V": 16384, "D": 1024, "L": 2, "H": 16, "KV": 4, "Hd": 64, "E": 32, "K": 4, "F": 512}

HEAD = """# How well the plan with a roof predicts

Made by `./dev bench roof` (tests/bench/roof.py). `moec explain --check` measures in turn, six times each: what the machine can do
(reading with one stream a thread and with eight; multiply-adds of f32, bf16, int8, of matrix tiles where there are any), what our
own kernels take for a weight that 1 to 256 rows meet, what row programs and attention take on the steps of a small decoder
(crates/moec/src/roof/sample.moe), what a barrier takes, and the passes themselves. Predicted is computed from all but the last.

*Error*: |predicted / measured - 1|. *Roof*: the longer of bytes over the rate of reading and operations over the rate of the
fastest multiply-add, over what was measured. A *line* is all steps of one kind in a layer; those that take less than 2 % of their
pass are left out. The machine is shared: what one in ten executions stays below is taken for a step's time."""


def lines(roof):
    whole = measured.measured(roof)
    return [line for line in roof["lines"] if line["measured_seconds"] >= whole / 50]


def error(predicted, found):
    return abs(predicted / found - 1)


def time(seconds):
    return f"{1e3 * seconds:.3g}"


def table(title, rows):
    print(f"\n## {title}\n\n| tokens | bound | roof, ms | predicted, ms | measured, ms | error | of the roof | largest error of a line |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for roof in rows:
        found = measured.measured(roof)
        longest = max(roof["lines"], key=lambda line: line["measured_seconds"])
        worst = max(lines(roof), key=lambda line: error(line["predicted_seconds"], line["measured_seconds"]))
        worst_error = error(worst["predicted_seconds"], worst["measured_seconds"])
        tokens = f"{roof['tokens']} after {roof['past']}" if roof["past"] else roof["tokens"]
        print(f"| {tokens} | {longest['bound']} | {time(roof['roof_seconds'])} | {time(roof['predicted_seconds'])} | {time(found)} | "
              f"{100 * error(roof['predicted_seconds'], found):.0f} % | {roof['roof_seconds'] / found:.2f} | "
              f"{100 * worst_error:.0f} % ({worst['steps']}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="A,B,C")
    parser.add_argument("--formats", default="bf16,int8,int4-128")
    parser.add_argument("--tokens", default="1,4,16,64,512,2048")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    tokens = [int(number) for number in arguments.tokens.split(",")]
    formats = arguments.formats.split(",")
    print(f"{HEAD}\n\n{measured.now()}; {measured.others_busy():.1f} processes ran or waited when this began.")
    layers, whole = [], []
    for shape in arguments.shapes.split(","):
        for quant in formats:
            rows = measured.roofs(LAYER, SHAPES[shape], tokens, quant)
            table(f"{shape}, {quant}", rows)
            layers += rows
    for quant in formats:
        rows = measured.roofs(DECODER, WHOLE, [1, 64], quant, past=512)
        table(f"A decoder of two layers, {quant}", rows)
        whole += rows
    print("\n## In all\n")
    for what, rows in (("layers of experts", layers), ("decoders", whole)):
        errors = [error(roof["predicted_seconds"], measured.measured(roof)) for roof in rows]
        each = [error(line["predicted_seconds"], line["measured_seconds"]) for roof in rows for line in lines(roof)]
        print(f"- {what}: median error of a pass {100 * statistics.median(errors):.0f} % ({len(errors)} passes, largest "
              f"{100 * max(errors):.0f} %); of a line {100 * statistics.median(each):.0f} % ({len(each)} lines)")
    barriers = [roof["machine"]["barrier_seconds"] for roof in layers + whole]
    threads = (layers + whole)[0]["machine"]["threads"]
    print(f"- a barrier of {threads} threads: {1e6 * statistics.median(barriers):.2f} µs (from {1e6 * min(barriers):.2f} to {1e6 * max(barriers):.2f})")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(layers + whole, file, indent=1)


main()
