"""Experts in Triton, the way serving frameworks write them: slots sorted by expert in blocks of one expert each, a kernel for gate
and up with the activation at its end, a kernel for down that weighs each slot, and a sum over each token's choices."""
import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, out, order, block_experts, factors, slots, n, k, per_row, B_EXPERT: tl.constexpr, BRANCHES: tl.constexpr,
            WEIGH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr):
    """out[slot] = f(a[slot // per_row] times b[expert]), b [E, BRANCHES * n, k]. `order` [blocks * M] has slots, or `slots` for none;
    a block's expert is -1 where it has none. f: silu of the first branch times the second, or the slot's factor times the sum."""
    blocks, columns = tl.num_programs(0), tl.num_programs(1)
    at = tl.program_id(1) * blocks + tl.program_id(0)
    group = at // (GROUP * columns)
    rows = tl.minimum(blocks - group * GROUP, GROUP)
    block = group * GROUP + at % (GROUP * columns) % rows
    column = at % (GROUP * columns) // rows
    expert = tl.load(block_experts + block)
    if expert < 0:
        return
    slot = tl.load(order + block * M + tl.arange(0, M)).to(tl.int64)
    there = slot < slots
    wide = column * N + tl.arange(0, N)
    deep = tl.arange(0, K)
    from_a = a + (slot // per_row)[:, None] * k + deep[None]
    from_b = b + expert.to(tl.int64) * B_EXPERT + wide[None] * k + deep[:, None]
    first = tl.zeros((M, N), tl.float32)
    second = tl.zeros((M, N), tl.float32)
    for start in range(0, k, K):
        inside = deep < k - start
        rows_a = tl.load(from_a + start, there[:, None] & inside[None], 0.0)
        mask = inside[:, None] & (wide < n)[None]
        first = tl.dot(rows_a, tl.load(from_b + start, mask, 0.0), first)
        if BRANCHES == 2:
            second = tl.dot(rows_a, tl.load(from_b + n * k + start, mask, 0.0), second)
    if BRANCHES == 2:
        first = first * tl.sigmoid(first) * second
    if WEIGH:
        first *= tl.load(factors + slot, there, 0.0)[:, None]
    tl.store(out + slot[:, None] * n + wide[None], first.to(out.dtype.element_ty), there[:, None] & (wide < n)[None])


class Experts:
    """gate_up [E, 2 I, H] and down [E, H, I], both bf16 on one device."""

    def __init__(self, gate_up, down, choices):
        self.gate_up, self.down, self.choices = gate_up, down, choices
        self.experts, self.width, self.inner = down.shape

    def blocks(self, ids, m):
        """Slots by expert, each expert's up to a multiple of m -> (order, the expert of each block). The host never waits."""
        flat, slots = ids.flatten(), ids.numel()
        most = (slots + min(slots, self.experts) * (m - 1) + m - 1) // m
        sorted_ids, sorted_slots = flat.sort(stable=True)
        counts = torch.zeros(self.experts, dtype=torch.int64, device=ids.device).scatter_add_(0, flat, torch.ones_like(flat))
        padded = (counts + m - 1) // m * m
        begins, ends = padded.cumsum(0) - padded, padded.cumsum(0)
        place = begins[sorted_ids] + torch.arange(slots, device=ids.device) - (counts.cumsum(0) - counts)[sorted_ids]
        order = torch.full((most * m,), slots, dtype=torch.int32, device=ids.device)
        order.scatter_(0, place, sorted_slots.to(torch.int32))
        starts = torch.arange(most, device=ids.device) * m
        expert = torch.searchsorted(ends, starts, right=True)
        return order, torch.where(starts < ends[-1], expert, -1).to(torch.int32)

    def __call__(self, x, ids, factors):
        tokens, slots = x.shape[0], ids.numel()
        m = 16 if slots <= 16 * self.experts else 64 if slots <= 128 * self.experts else 128
        n, k, warps = (64, 128, 4) if m == 16 else (128, 64, 8 if m == 128 else 4)
        order, block_experts = self.blocks(ids, m)
        between = torch.empty(slots, self.inner, dtype=x.dtype, device=x.device)
        out = torch.empty(slots, self.width, dtype=x.dtype, device=x.device)
        sizes = dict(M=m, K=k, GROUP=16, num_warps=warps, num_stages=3)
        half = n // 2 if m == 128 else n
        product[len(block_experts), triton.cdiv(self.inner, half)](
            x, self.gate_up, between, order, block_experts, factors, slots, self.inner, self.width, self.choices,
            self.gate_up.stride(0), 2, False, N=half, **sizes)
        product[len(block_experts), triton.cdiv(self.width, n)](
            between, self.down, out, order, block_experts, factors, slots, self.width, self.inner, 1,
            self.down.stride(0), 1, True, N=n, **sizes)
        return out.view(tokens, self.choices, self.width).sum(1)
