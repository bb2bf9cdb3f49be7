#!/usr/bin/env python3
"""Time one MoE layer in several peers, interleaved, beside what the machine can do in the same minute.

Every peer lives in a process of its own, stopped (SIGSTOP) while another one runs. One round = a probe of the machine and
one sweep of every peer; rounds repeat until each point has had its share of time.
"""
import argparse
import ctypes
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import workloads
from peers import HOME, REGISTRY, THREADS

SLOW = 5.0                    # a call this long is timed once, by its first run
HERE = os.path.dirname(os.path.abspath(__file__))


class Worker:
    """The process of all the peers that share one interpreter and one copy of the weights."""

    def __init__(self, venv: str, names: list[str]):
        self.names = names
        python = os.path.join(HOME, "venvs", venv, "bin", "python")
        if not os.path.exists(python):
            raise SystemExit(f"{python} is missing: run install.sh, or leave out {', '.join(names)} (--peers)")
        env = dict(os.environ, BENCH_HOME=HOME, BENCH_THREADS=str(THREADS), OMP_NUM_THREADS=str(THREADS), PYTHONPATH=HERE)
        self.log = open(os.path.join(HOME, "worker.log"), "a")
        self.process = subprocess.Popen([python, os.path.join(HERE, "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, env=env, cwd=HERE)
        self.ask(do="start", peers=names)

    def ask(self, **message):
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"failed": f"the worker died with {self.process.wait()}"}
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Machine:
    def __init__(self):
        self.lib = ctypes.CDLL(os.path.join(HOME, "lib", "libprobe.so"))
        for f in (self.lib.probe_read_gbs, self.lib.probe_bf16_tflops, self.lib.probe_int8_tops):
            f.restype, f.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_long]

    @staticmethod
    def others_busy(seconds=0.2) -> float:
        """Cores that processes other than ours keep busy; call it while every worker is stopped."""
        def busy():
            with open("/proc/stat") as f:
                user, nice, system, idle, iowait, *rest = map(int, f.readline().split()[1:9])
            return user + nice + system
        before = busy()
        time.sleep(seconds)
        return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds

    def probe(self) -> dict:
        return {"others_busy": self.others_busy(), "read_gbs": self.lib.probe_read_gbs(THREADS, 768),
                "bf16_tflops": self.lib.probe_bf16_tflops(THREADS, 2_000_000),
                "int8_tops": self.lib.probe_int8_tops(THREADS, 2_000_000)}


def cpu_name() -> str:
    with open("/proc/cpuinfo") as f:
        return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))


def roof_seconds(w: workloads.Workload, machine: dict) -> float:
    """The longer of reading the active experts once and doing the arithmetic at the probed rate."""
    peak = machine["bf16_tflops"] if w.dtype == "bf16" else machine["int8_tops"]
    return max(w.weight_bytes / machine["read_gbs"] / 1e9, w.flops / peak / 1e12)


def measure(w, workers, machine, seconds, min_rounds, max_rounds):
    """-> [row]"""
    rows, live = [], []
    for worker in workers:
        for name in worker.names:
            a = worker.ask(do="prepare", peer=name, shape=w.shape.name, tokens=w.tokens, routing=w.routing, dtype=w.dtype)
            if a.get("failed"):
                print(f"  {name}: {a['failed'].strip().splitlines()[-1]}", file=sys.stderr)
            if a.get("failed") or a.get("skip"):
                continue
            live.append((worker, name, [a["first_s"]] if a["first_s"] > SLOW else [], a))
    probes, started = [], time.monotonic()
    while live and len(probes) < max_rounds and (len(probes) < min_rounds or time.monotonic() - started < seconds):
        probes.append(machine.probe())
        for worker, name, times, first in live:
            if first["first_s"] > SLOW:
                continue
            a = worker.ask(do="sweep", peer=name)
            if "seconds" in a:
                times.append(a["seconds"])
    if not live:
        return rows
    best_machine = {k: max(p[k] for p in probes) for k in probes[0]}
    roof = roof_seconds(w, best_machine)
    for worker, name, times, a in live:
        worker.ask(do="forget", peer=name)
        if not times:
            continue
        best = min(times)
        rows.append({
            "workload": w.name, "shape": w.shape.name, "dtype": w.dtype, "tokens": w.tokens, "routing": w.routing,
            "peer": name, "runs": a["runs"], "best_ms": best * 1e3, "median_ms": statistics.median(times) * 1e3,
            "rounds": len(times), "gbs": w.weight_bytes / best / 1e9, "tflops": w.flops / best / 1e12,
            "of_roof": roof / best, "roof_ms": roof * 1e3, "active_experts": w.active_experts, "error": a["error"],
            "machine": best_machine, "load_s": a["load_s"], "rss_gb": a["rss"] / 1e9,
        })
    return rows


def table(rows):
    if not rows:
        return
    fastest = min(r["best_ms"] for r in rows)
    m = rows[0]["machine"]
    print(f"\n{rows[0]['workload']}   roof {rows[0]['roof_ms']:.3f} ms   (read {m['read_gbs']:.1f} GB/s, "
          f"products {m['bf16_tflops']:.2f} bf16 / {m['int8_tops']:.2f} int8 T/s, {rows[0]['active_experts']:.1f} experts active)")
    if m["others_busy"] > 0.1:
        print(f"  CONTENDED: other processes kept {m['others_busy']:.1f} cores busy in the worst round; do not use these figures")
    print(f"  {'peer':<24}{'best ms':>10}{'median':>10}{'GB/s':>8}{'TFLOP/s':>9}{'of roof':>9}{'x best':>8}{'error':>9}")
    for r in sorted(rows, key=lambda r: r["best_ms"]):
        error = "" if r["error"] is None else f"{r['error']:.4f}"
        print(f"  {r['peer']:<24}{r['best_ms']:>10.3f}{r['median_ms']:>10.3f}{r['gbs']:>8.2f}{r['tflops']:>9.3f}"
              f"{r['of_roof']:>9.2f}{r['best_ms'] / fastest:>8.2f}{error:>9}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peers", default=",".join(name for name in REGISTRY if not name.endswith("compiled")))
    p.add_argument("--shapes", default="A,B,C")
    p.add_argument("--tokens", default=",".join(map(str, workloads.TOKENS)))
    p.add_argument("--routings", default=",".join(workloads.ROUTINGS))
    p.add_argument("--dtypes", default="bf16,int8,int4")
    p.add_argument("--seconds", type=float, default=8, help="a workload, over all peers")
    p.add_argument("--min-rounds", type=int, default=3)
    p.add_argument("--max-rounds", type=int, default=15)
    p.add_argument("--json", default="")
    a = p.parse_args()

    names = a.peers.split(",")
    machine, rows = Machine(), []
    for shape in a.shapes.split(","):
        for dtype in a.dtypes.split(","):
            groups = {}                                         # one process for each module: its variants share weights
            for n in names:
                groups.setdefault(REGISTRY[n][:1] + REGISTRY[n][2:3] + (() if n.startswith("torch") else (n,)), []).append(n)
            workers = [Worker(key[1], members) for key, members in groups.items()]
            try:
                for tokens in map(int, a.tokens.split(",")):
                    for routing in a.routings.split(","):
                        w = workloads.workload(workloads.SHAPES[shape], tokens, routing, dtype)
                        new = measure(w, workers, machine, a.seconds, a.min_rounds, a.max_rounds)
                        table(new)
                        rows += new
                        if a.json:
                            with open(a.json, "w") as f:
                                json.dump({"when": datetime.datetime.now().isoformat(timespec="seconds"), "cpu": cpu_name(), "threads": THREADS, "rows": rows}, f, indent=1)
            finally:
                for worker in workers:
                    worker.end()


if __name__ == "__main__":
    main()
