#!/usr/bin/env python3
"""report.py OUT.json…: the tables of docs/benchmarks/cpu.md, from what run_layer.py wrote; on standard output."""
import json
import sys


HEAD = """# One layer of experts beside its peers, on CPU

Made by `./dev bench peers`; how, and with what shapes, stands in `tests/bench/layers/workloads.py`. Every peer ran in the same
minutes on the same machine, each in a process of its own, stopped while another ran. The machine swings, so only the ratios
hold. *Roof*: the longer of (bytes of the experts in use, read once, at the rate of the read probe) and (operations at the rate of
the fastest multiply-add), both probed in the same rounds; a share above 1 means that the read probe fell short. Whole models: model.md; what each pass is worth: passes.md.

Not measured yet: the level `amx`. What it should do is in [amx.md](amx.md)."""


def cell(row, rows):
    """A peer's best time, and its share of the roof; bold where it is the fastest."""
    text = f"{row['best_ms']:.3g} ({row['of_roof']:.2f})"
    return f"**{text}**" if row["best_ms"] == min(r["best_ms"] for r in rows) else text


def ratio(rows):
    """The best peer's time over ours: above 1 we are ahead."""
    ours = [r["best_ms"] for r in rows if r["peer"] == "moec"]
    peers = [r["best_ms"] for r in rows if r["peer"] != "moec"]
    return f"{min(peers) / ours[0]:.2f}" if ours and peers else ""


def table(shape, dtype, rows):
    peers = sorted({r["peer"] for r in rows}, key=lambda name: (name != "moec", name))
    print(f"\n### {shape}, {dtype}\n")
    print("| tokens | routing | read GB/s | T/s | " + " | ".join(peers) + " | best peer / moec |")
    print("|---" * (5 + len(peers)) + "|")
    for key in dict.fromkeys((r["tokens"], r["routing"]) for r in rows):
        here = [r for r in rows if (r["tokens"], r["routing"]) == key]
        by_peer = {r["peer"]: r for r in here}
        machine = here[0]["machine"]
        rate = machine["bf16_tflops" if dtype == "bf16" else "int8_tops"]
        cells = [cell(by_peer[name], here) if name in by_peer else "" for name in peers]
        noisy = " (!)" if machine["others_busy"] > 0.1 else ""
        print(f"| {key[0]} | {key[1]}{noisy} | {machine['read_gbs']:.1f} | {rate:.2f} | " + " | ".join(cells) + f" | {ratio(here)} |")
    errors = {r["peer"]: r["error"] for r in rows if r["error"] is not None}
    print("\nLargest error over the largest value, first token: " + ", ".join(f"{p} {e:.4f}" for p, e in sorted(errors.items())) + ".")


def main():
    runs = [json.load(open(path)) for path in sys.argv[1:]]
    print(HEAD)
    for run in runs:
        print(f"\n## {run['when']}: {run['cpu']}, {run['threads']} threads\n")
        print("Milliseconds of one call (best of the rounds; in brackets the share of the roof), bold the fastest. (!): other "
              "processes were busy meanwhile.")
        for key in dict.fromkeys((r["shape"], r["dtype"]) for r in run["rows"]):
            table(*key, [r for r in run["rows"] if (r["shape"], r["dtype"]) == key])


main()
