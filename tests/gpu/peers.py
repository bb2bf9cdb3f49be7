#!/usr/bin/env python3
"""peers.py WORKLOADS RESULTS: times what else there is for a layer of experts, where it can be imported.

The same workloads, choices and way to time as bench.c (whose head says what they are); weights and rows are random bf16 numbers.
Every peer's first tokens are compared with a sum in f32 before it is timed. `--device cpu` checks the peers without a GPU; their
times then mean nothing.
"""
import argparse
import importlib.util
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F

CALLS, SHORT_TOKENS, ROUNDS, ROUND_SECONDS = 16, 64, 7, 0.05
LARGEST_ERROR = 0.03
MOST_COPIED = 8e9                   # bytes that a peer may make of weights, row by row
HERE = os.path.dirname(os.path.abspath(__file__))


def mixed(at: torch.Tensor) -> torch.Tensor:
    """bench.c's hash; integers of 64 bits that wrap, shifted as if they had no sign."""
    def shifted(x, by):
        return (x >> by) & ((1 << (64 - by)) - 1)
    def signed(x):
        return x - (1 << 64) if x >= 1 << 63 else x
    at = at + signed(0x9e3779b97f4a7c15)
    at = (at ^ shifted(at, 30)) * signed(0xbf58476d1ce4e5b9)
    at = (at ^ shifted(at, 27)) * signed(0x94d049bb133111eb)
    return at ^ shifted(at, 31)


def chosen(experts, choices, tokens, routing, call):
    """int64 [tokens, choices], as bench.c chooses; the experts are a power of two."""
    hashed = mixed((call << 32) | torch.arange(tokens, dtype=torch.int64))
    first = (hashed & (experts - 1))[:, None]
    choice = torch.arange(choices, dtype=torch.int64)[None]
    if routing == "skewed":
        return torch.where(choice == 0, 0, 1 + (first + choice) % (experts - 1))
    step = (1 + 2 * ((hashed >> 32) & (experts // 2 - 1)))[:, None]
    return (first + choice * step) & (experts - 1)


class Work:
    """A layer and its calls: weights gate_up [E, 2 I, H] and down [E, H, I], rows [T, H], ids and factors [T, K]."""

    def __init__(self, line, device, weights):
        self.layer, *sizes, self.routing = line.split()
        self.experts, self.choices, self.width, self.inner, self.tokens = map(int, sizes)
        self.device = device
        key = (self.experts, self.width, self.inner)
        if key not in weights:
            weights.clear()
            def made(*shape):
                return torch.empty(shape, dtype=torch.bfloat16, device=device).uniform_(-1, 1) * (3 / shape[-1]) ** 0.5
            weights[key] = made(self.experts, 2 * self.inner, self.width), made(self.experts, self.width, self.inner)
        self.gate_up, self.down = weights[key]
        self.x = (torch.rand(self.tokens, self.width, device=device) * 2 - 1).mul(3 ** 0.5).bfloat16()
        count = CALLS if self.tokens <= SHORT_TOKENS else 1
        self.ids = [chosen(self.experts, self.choices, self.tokens, self.routing, call).to(device) for call in range(count)]
        self.factors = torch.full((self.tokens, self.choices), 1 / self.choices, device=device)

    def expected(self, tokens=4):
        """float32 [tokens, H], of the first call."""
        y = torch.zeros(min(tokens, self.tokens), self.width, device=self.device)
        for token in range(y.shape[0]):
            x = self.x[token].float()
            for choice, expert in enumerate(self.ids[0][token].tolist()):
                gate, up = (self.gate_up[expert].float() @ x).chunk(2)
                y[token] += self.factors[token, choice] * (self.down[expert].float() @ (F.silu(gate) * up))
        return y


def grouped_mm(a, b, ends):
    """Rows of a [S, K] in groups that end at `ends`, times b [E, K, N]."""
    call = getattr(F, "grouped_mm", None) or torch._grouped_mm
    return call(a, b, offs=ends)


def torch_grouped(work):
    """The two grouped products of torch, and its sorting, gathering and adding around them."""
    def run(call):
        flat = work.ids[call].flatten()
        order = flat.argsort(stable=True)
        ends = torch.searchsorted(flat[order], work.every_expert, right=True).to(torch.int32)
        rows = work.x[order // work.choices]
        gate, up = grouped_mm(rows, work.gate_up.transpose(1, 2), ends).chunk(2, dim=-1)
        rows = grouped_mm(F.silu(gate) * up, work.down.transpose(1, 2), ends)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        slots = rows[back].view(work.tokens, work.choices, work.width)
        return torch.bmm(work.factors.bfloat16()[:, None], slots)[:, 0]
    work.every_expert = torch.arange(work.experts, device=work.device)
    return run


def cublas_loop(work):
    """One product after the other, with the counts of each expert known ahead: a loop whose host never waits."""
    plans = []
    for ids in work.ids:
        flat = ids.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=work.experts).tolist()
        plans.append((order // work.choices, order, counts))
    factors = work.factors.flatten()

    def run(call):
        tokens, order, counts = plans[call]
        y, first = torch.zeros(work.tokens, work.width, device=work.device), 0
        for expert, count in enumerate(counts):
            if count == 0:
                continue
            of = slice(first, first + count)
            first += count
            gate, up = (work.x[tokens[of]] @ work.gate_up[expert].T).chunk(2, dim=-1)
            rows = (F.silu(gate) * up) @ work.down[expert].T
            y.index_add_(0, tokens[of], rows.float() * factors[order[of], None])
        return y
    return run


def of_transformers(implementation):
    def peer(work):
        from transformers import Qwen3MoeConfig
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts
        copied = work.tokens * work.choices * 3 * work.width * work.inner * 2
        if implementation == "batched_mm" and copied > MOST_COPIED:
            raise MemoryError("it copies an expert's weights for each row")
        config = Qwen3MoeConfig(hidden_size=work.width, moe_intermediate_size=work.inner, num_experts=work.experts,
                                num_experts_per_tok=work.choices)
        config._experts_implementation = implementation
        with torch.device("meta"):
            experts = Qwen3MoeExperts(config)
        experts.gate_up_proj = torch.nn.Parameter(work.gate_up, requires_grad=False)
        experts.down_proj = torch.nn.Parameter(work.down, requires_grad=False)
        experts.config = config
        factors = work.factors.bfloat16()
        return lambda call: experts(work.x, work.ids[call], factors)
    return peer


def triton_fused(work):
    """Blocks of slots of one expert, sorted on the device; the activation between two kernels (triton_experts.py)."""
    from triton_experts import Experts
    experts = Experts(work.gate_up, work.down, work.choices)
    return lambda call: experts(work.x, work.ids[call], work.factors)


PEERS = {
    "torch grouped": torch_grouped,
    "transformers grouped_mm": of_transformers("grouped_mm"),
    "transformers batched_mm": of_transformers("batched_mm"),
    "transformers eager": of_transformers("eager"),
    "Triton fused": triton_fused,
    "cuBLAS loop": cublas_loop,
}


class Clock:
    """Seconds between two points of the device's work."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def measure(self, run):
        if not self.cuda:
            started = time.perf_counter()
            run()
            return time.perf_counter() - started
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def captured(run, calls):
    """All calls as one graph; None where something in them asks the host."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            for call in range(calls):
                run(call)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in range(calls):
                run(call)
        return graph
    except Exception:                       # whatever a peer raises then: it is timed without a graph
        torch.cuda.synchronize()
        return None


def timed(run, work, clock):
    """-> (best, median, note), seconds of one call"""
    calls = len(work.ids)
    graph = captured(run, calls) if clock.cuda else None

    def sweep():
        if graph:
            graph.replay()
        else:
            for call in range(calls):
                run(call)
    sweep()
    sweeps = 1 + int(ROUND_SECONDS / max(clock.measure(sweep), 1e-6)) if clock.cuda else 1

    def several():
        for _ in range(sweeps):
            sweep()
    seconds = [clock.measure(several) / (sweeps * calls) for _ in range(ROUNDS if clock.cuda else 1)]
    return min(seconds), statistics.median(seconds), "graph" if graph else "no graph"


def bounds(clock, tell):
    size = 8192 if clock.cuda else 256
    device = "cuda" if clock.cuda else "cpu"
    a, b = ((torch.rand(size, size, device=device) * 2 - 1).bfloat16() for _ in range(2))
    a @ b
    best = min(clock.measure(lambda: a @ b) for _ in range(20))
    tell("bound", "gemm", "torch (cuBLAS)", f"{2 * size ** 3 / best / 1e12:.1f}")
    source = torch.empty((1 << 30) if clock.cuda else 1 << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(clock.measure(lambda: target.copy_(source)) for _ in range(20))
    tell("bound", "copy", "torch", f"{2 * source.numel() / best / 1e9:.1f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workloads")
    p.add_argument("results")
    p.add_argument("--device", default="cuda")
    p.add_argument("--peers", default=",".join(PEERS))
    a = p.parse_args()
    sys.path.insert(0, HERE)
    clock, weights, wrong = Clock(a.device), {}, 0

    def tell(*words):
        with open(a.results, "a") as f:
            f.write("\t".join(str(word).replace("\t", " ").replace("\n", " ") for word in words) + "\n")

    for module in ("torch", "transformers", "triton"):
        if importlib.util.find_spec(module):
            tell("machine", module, importlib.import_module(module).__version__)
    torch.manual_seed(0)
    with torch.inference_mode():
        bounds(clock, tell)
        for line in open(a.workloads):
            if not line.strip() or line.split()[-1] in ("dense", "gate"):
                continue
            work = Work(line, a.device, weights)
            expected = work.expected()
            for name in a.peers.split(","):
                at = work.layer, work.tokens, work.routing
                try:
                    run = PEERS[name](work)
                    found = run(0)[:expected.shape[0]].float()
                    error = ((found - expected).abs().max() / expected.abs().max()).item()
                    if not error < LARGEST_ERROR:
                        wrong = 1
                        raise ValueError(f"its results are off by {error:.3f} of the largest")
                    best, median, note = timed(run, work, clock)
                except Exception as e:      # one peer that fails, or is not there, is a line of the report
                    why = (str(e).strip().splitlines() or [""])[0]
                    tell("failed", name, *at, f"{type(e).__name__}: {why}"[:200])
                    print(f"  {name}, {work.layer}, {work.tokens} tokens: {type(e).__name__}: {why}", file=sys.stderr)
                    continue
                tell("time", name, *at, f"{best * 1e6:.3f}", f"{median * 1e6:.3f}", note)
                print(f"  {name:<26} {work.layer:<24} {work.tokens:6} tokens, {work.routing:<8} {best * 1e6:12.1f} us", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
