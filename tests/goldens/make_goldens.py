#!/usr/bin/env python3
"""Writes cases.json: what every technique of examples/catalogue must choose and give.

Each technique is computed here in f64 NumPy from its published formula, once at the sizes of the catalogue's golden table (whose
printed values are asserted), once with a single token, once with awkward sizes. Numbers need no random generator:
M(r, c, s)[i, j] = sin(s + 0.7 i + 1.3 j + 0.37 i j). Needs NumPy and SciPy; run it after changing a formula, and look at the difference.
"""

import json
import math
import os

import numpy as np


def softmax(x, ax=-1):
    z = np.exp(x - x.max(ax, keepdims=True))
    return z / z.sum(ax, keepdims=True)


sigmoid = lambda x: 1 / (1 + np.exp(-x))
relu = lambda x: np.maximum(x, 0)
silu = lambda x: x * sigmoid(x)
gelu = lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
gelu_tanh = lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
unit = lambda a, ax=-1: a / np.sqrt((a * a).sum(ax, keepdims=True))
normalise = lambda a: a / a.sum(-1, keepdims=True)
gather = lambda x, i: np.take_along_axis(x, i, -1)


def M(r, c, s):
    i, j = np.meshgrid(np.arange(r), np.arange(c), indexing="ij")
    return np.sin(s + 0.7 * i + 1.3 * j + 0.37 * i * j)


class Case:
    """The sizes of one case; collects inputs and parameters as they are asked for."""

    margin = 1e9  # between what a top-k takes and what it leaves, over all cases

    def __init__(self, kind, shift=0.0, T=16, D=8, E=8, H=6, K=None):
        self.kind, self.shift, self.T, self.D, self.E, self.H, self.K = kind, shift, T, D, E, H, K
        self.set, self.inputs, self.params, self.routes = {}, [], [], []
        self.extras, self.train = {}, False
        self.facts = {}  # more of the golden table's values, by their names there
        self.x = self.input("x", (T, D, 1.0))

    def sizes(self, **golden):
        """Settings: the given ones, unless this case has other sizes."""
        odd = self.kind == "odd"
        if odd:
            self.set.update(D=self.D, E=self.E, H=self.H)
        values = [golden[name][odd] if isinstance(golden[name], tuple) else golden[name] for name in golden]
        self.set.update({name: value for name, value in zip(golden, values) if odd})
        return values[0] if len(values) == 1 else values

    def input(self, name, waves):
        rows, columns, seed = waves
        self.inputs.append({"name": name, "waves": [rows, columns, seed + self.shift, 1.0]})
        return M(rows, columns, seed + self.shift)

    def ids(self, name, values):
        values = np.asarray(values)
        self.inputs.append({"name": name, "values": values.tolist()})
        return values

    def param(self, path, axes, rows, columns, seed, scale=1.0, each=0.0, count=1, first=0, layer=0.0, layers=1):
        """One matrix; or, for `count` experts (or layers), a list of them."""
        entry = {"path": path, "axes": axes.split(), "waves": [rows, columns, seed + self.shift, scale]}
        entry |= {k: v for k, v in (("first", first), ("each", each), ("layer", layer)) if v}
        self.params.append(entry)
        at = lambda e, l: scale * M(rows, columns, seed + self.shift + each * e + layer * l)
        if layer and each:
            return [[at(e, l) for e in range(count)] for l in range(layers)]
        if layer:
            return [at(0, l) for l in range(layers)]
        return [at(e, 0) for e in range(count)] if each else at(0, 0)

    def values(self, path, axes, values, first=0):
        values = np.asarray(values, float)
        self.params.append({"path": path, "axes": axes.split(), "values": [round(v, 9) for v in values.ravel().tolist()]} | ({"first": first} if first else {}))
        return values

    def top_k(self, x, k):
        order = np.argsort(-x, -1, kind="stable")
        if k < x.shape[-1]:
            ranked = gather(x, order)
            gap = ranked[..., k - 1] - ranked[..., k]
            Case.margin = min(Case.margin, gap[np.isfinite(gap)].min())
        return gather(x, order[..., :k]), order[..., :k]

    def mlps(self, where="ffn.experts[e]", count=None, H=None, first=0, seeds=(10.0, 20.0), act=relu):
        """`count` experts act(x A1) A2."""
        count, H = count or self.E, H or self.H
        a = self.param(where + ".up", "D F", self.D, H, seeds[0], each=1.0, count=count, first=first)
        b = self.param(where + ".down", "F D", H, self.D, seeds[1], each=1.0, count=count, first=first)
        return [lambda x, a=a, b=b: act(x @ a) @ b for a, b in zip(a, b)]

    def mlp(self, where, H=None, seeds=(30.0, 31.0)):
        H = H or self.H
        a = self.param(where + ".up", "D F", self.D, H, seeds[0])
        b = self.param(where + ".down", "F D", H, self.D, seeds[1])
        return lambda x: relu(x @ a) @ b

    def W(self, path="ffn.gate.W", axis="E", E=None, seed=2.0, scale=1.0):
        return self.param(path, "D " + axis, self.D, E or self.E, seed, scale)

    def choose(self, i, w):
        """The route's record."""
        self.routes.append({"i": i.ravel().tolist(), "w": [round(float(v), 7) for v in w.ravel()]})
        self.i, self.w = i, w

    def combine(self, i, w, experts, x=None):
        """The route's record, and y[t] = sum over k of w * expert_i(x[t]); -1 is no choice."""
        x = self.x if x is None else x
        w = np.where(i >= 0, w, 0.0)
        self.choose(i, w)
        y = np.zeros_like(x)
        for t, k in np.ndindex(i.shape):
            if i[t, k] >= 0:
                y[t] += w[t, k] * experts[i[t, k]](x[t])
        return y

    def extra(self, at="ffn.gate.", **values):
        """What is given on request, by the name of its `aux`, `trace` or `state`."""
        self.extras.update({at + name: np.asarray(value, float) for name, value in values.items()})

    def dense(self, w, experts, keep=None):
        i = np.tile(np.arange(w.shape[-1]), (self.T, 1))
        return self.combine(i if keep is None else np.where(keep, i, -1), w, experts)


# Parts of losses: i [N, K] below 0 for no choice, p [N, E].
one_hot = lambda i, n: (i[..., None] == np.arange(n)).astype(float)
picked = lambda c, i: one_hot(i, c.E).sum(1)
entropy = lambda p: -(p * np.log(p)).sum(-1)
log_sum_exp = lambda l: l.max(-1) + np.log(np.exp(l - l.max(-1, keepdims=True)).sum(-1))
cv2 = lambda v: (v.std() / v.mean()) ** 2
below = lambda x: 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))
balance = lambda f, p: f.shape[-1] * (f * p.mean(0)).sum()


U = lambda v: np.asarray(np.asarray(v, np.int64) % 2**32, np.uint32)


def mix(i):
    """Bits from bits, as the library's `mix`."""
    with np.errstate(over="ignore"):
        a = (i ^ (i >> U(16))) * U(0x85EBCA6B)
        b = (a ^ (a >> U(13))) * U(0xC2B2AE35)
    return b ^ (b >> U(16))


def key(seed, step, site):
    with np.errstate(over="ignore"):
        return mix(mix(mix(U(seed)) + U(step * 668265263)) + U(np.asarray(site, np.int64) * 374761393))


def bits(key, n):
    return mix(mix(U(np.arange(n) * -1640531535 + 40503)) ^ np.asarray(key)[..., None])


uniform_of = lambda bits: (bits >> U(9)) * 2.0**-23 + 2.0**-24
uniform = lambda key, n: uniform_of(bits(key, n))
gumbel = lambda key, n: -np.log(-np.log(uniform(key, n)))


def normal(key, n):
    with np.errstate(over="ignore"):
        other = mix(key + U(1))
    return np.sqrt(-2 * np.log(uniform(key, n))) * np.cos(2 * np.pi * uniform(other, n))


TECHNIQUES = {}


def technique(spec, golden=None, train=False):
    def register(f):
        TECHNIQUES[spec, train] = (f, golden)
        return f

    return register


G02 = "i=3 0; sum_i=768; w=0.383124 0.200796; sum_w=10.619012; norm=9.96023; sum=-0.31570"


@technique("top_k", G02 + "; balance=1.959789; z=10.138572")
def top_k(c):
    k = c.sizes(K=(2, 3))
    l = c.x @ c.W()
    w, i = c.top_k(softmax(l), k)
    c.extra(balance=balance(picked(c, i).mean(0), softmax(l)), z=(log_sum_exp(l) ** 2).mean())
    return c.combine(i, w, c.mlps())


# The rows of the table that have losses of these scores, with G02's choices.
LOSSES = "balance_sum_k=1.959789; balance_top1=1.057187; balance_paper=0.016519; z=10.138572; importance=0.045586; load=0.106818"
LOSSES += "; entropy=1.396369; local_0=1.082095; local_1=1.710643; global_0=-1.931719; global_1=-2.034172"
LOSSES += "; mutual_information=-0.659630"


@technique("losses", f"{G02}; {LOSSES}")
def losses(c):
    k, devices = c.sizes(K=(2, 3), devices=(4, 3))
    W = c.W()
    l = c.x @ W
    p = softmax(l)
    w, i = c.top_k(p, k)
    # The second half of the tokens is of another modality; a single token is of the first.
    modality = c.ids("modality", np.arange(c.T) * 2 // max(c.T, 2))
    noise = c.input("noise", (c.T, c.E, 5.0)) / 8
    c.inputs[-1]["waves"][3] = 1 / 8
    f, P, n = picked(c, i).mean(0), p.mean(0), picked(c, i).sum(0)
    first, second = modality == 0, modality == 1
    threshold = np.sort(l + noise, -1)[:, -k, None]
    sent = (picked(c, i).reshape(c.T, devices, -1) > 0).any(-1).mean(0) * devices / 2
    of_device = lambda v: v.reshape(devices, -1)
    local = lambda real: entropy(p[real]).mean() if real.any() else 0.0
    whole = lambda real: -entropy(p[real].mean(0)) if real.any() else 0.0
    directions = W / np.linalg.norm(W, axis=0)
    parameters = 1.0 + np.arange(c.E)
    z = p * np.where(modality[:, None] == np.arange(c.E) % 2, 1.5, 0.5)
    a, b = np.log(p), np.log(softmax(l + noise))
    c.extra(
        importance_of_chosen=cv2((one_hot(i, c.E) * w[..., None]).sum((0, 1))),
        importance=cv2(p.sum(0)),
        importance_of_sample=p.sum(0).var(ddof=1) / p.sum(0).mean() ** 2,
        load=cv2(below((l - threshold) * c.E).sum(0)),
        shares=n.var(ddof=1) / n.mean() ** 2,
        balance_sum_k=balance(f, p),
        balance_of_shares=balance(f, p),
        balance_per_choice=balance(f, p) / k,
        balance_top1=balance(one_hot(i[:, 0], c.E).mean(0), p),
        balance_paper=(one_hot(i[:, 0], c.E).mean(0) * P).mean(),
        z=(log_sum_exp(l) ** 2).mean(),
        z_of_first=(log_sum_exp(l)[first] ** 2).mean(),
        mutual_information=entropy(p).mean() - entropy(P),
        local_0=local(first),
        local_1=local(second),
        global_0=whole(first),
        global_1=whole(second),
        global_below=max(0.0, 2.5 + whole(first)),
        device=(of_device(c.E / k * f).mean(1) * of_device(P).sum(1)).sum(),
        communication=(sent * of_device(P).sum(1)).sum(),
        sequence=balance(f, normalise(sigmoid(l))) / k,
        entropy=entropy(p).mean(),
        by_score=((n - n.mean()) / n.mean() * (one_hot(i, c.E) * sigmoid(gather(l, i))[..., None]).sum((0, 1))).sum(),
        distilled=(log_sum_exp(noise) - gather(noise, i[:, :1])[:, 0]).mean(),
        diversity=np.linalg.norm(directions.T @ directions - np.eye(c.E)),
        simplicity=np.linalg.norm(W, axis=0).mean(),
        parameters=balance(f * parameters / parameters.mean(), p),
        budget=abs(P[0] - 0.2),
        localized=z.var() / z.mean(),
        consistency=(0.5 * (np.exp(a) * (a - b) + np.exp(b) * (b - a)).sum(-1)).mean(),
        coefficient=0.9 * 0.01 + 0.1 * 0.5 * (w <= 0.15).mean(),
    )
    if c.kind == "golden":
        # The rest of G28 has three choices.
        three = one_hot(c.top_k(p, 3)[1], c.E).sum(1).mean(0) * c.E / 3
        assert abs((three * P).sum() - 0.987104) < 1e-6
        assert abs((of_device(three).mean(1) * of_device(P).sum(1)).sum() - 0.982515) < 1e-6
    return c.combine(i, w, c.mlps())


G03 = "i=3 0; sum_i=768; w=0.656124 0.343876; sum_w=16; norm=15.04383; sum=-1.82527"


@technique("top_k_renormalised", G03)
def top_k_renormalised(c):
    k = c.sizes(K=(2, 3))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    return c.combine(i, normalise(w), c.mlps())


@technique("top_k_of_logits", G03)
def top_k_of_logits(c):
    k = c.sizes(K=(2, 3))
    v, i = c.top_k(c.x @ c.W(), k)
    return c.combine(i, softmax(v), c.mlps())


@technique("noisy_top_k", "i=3 6; sum_i=775; w=0.807224 0.192776; sum_w=16; norm=14.80910; sum=-0.85665; importance=0.154841; load=0.056034")  # G04
def noisy_top_k(c):
    return noisy(c, c.input("noise", (c.T, c.E, 5.0)))


def noisy(c, noise):
    k = c.sizes(K=(2, 3))
    deviation = np.logaddexp(0, c.x @ c.W("ffn.gate.noise_W", seed=3.0, scale=0.3))
    l = c.x @ c.W()
    v, i = c.top_k(l + noise * deviation, k)
    # The k-th best of the others.
    best = -np.sort(-(l + noise * deviation), -1)
    threshold = np.where(picked(c, i) > 0, best[:, k, None], best[:, k - 1, None])
    importance = (one_hot(i, c.E) * softmax(v)[..., None]).sum((0, 1))
    c.extra(importance=cv2(importance), load=cv2(below((l - threshold) / deviation).sum(0)))
    return c.combine(i, softmax(v), c.mlps())


@technique("noisy_drawn", train=True)
def noisy_drawn(c):
    seed, step = c.sizes(seed=(7, 11), step=(3, 5))
    return noisy(c, normal(key(seed, step, np.arange(c.T)), c.E))


@technique("noisy_drawn")
def noise_left_out(c):
    c.sizes(seed=(7, 11), step=(3, 5))
    return noisy(c, 0.0)


def limit(c, scores, of_group, kept):
    """scores [T, groups, members]; -inf outside the best groups."""
    _, g = c.top_k(of_group, kept)
    inside = (g[..., None] == np.arange(scores.shape[1])).any(1)
    return np.where(inside[..., None], scores, -np.inf).reshape(c.T, -1)


@technique("device_limited", "i=3 0 1; sum_i=1250; w=0.383124 0.200796 0.0978; sum_w=11.858440; norm=10.98278; sum=-0.75624")  # G07
def device_limited(c):
    k, groups, kept = c.sizes(K=(3, 3), groups=(4, 3), kept=(2, 2))
    p = softmax(c.x @ c.W()).reshape(c.T, groups, -1)
    w, i = c.top_k(limit(c, p, p.max(-1), kept), k)
    c.extra(balance=balance(picked(c, i).mean(0), p.reshape(c.T, -1)) / k)
    return c.combine(i, w, c.mlps())


@technique("node_limited", "i=3 1 0; sum_i=1186; w=0.978562 0.667057 0.854381; sum_w=40; norm=36.34216; sum=-15.94373; bias=-0.001 0.167294 0.180859; balance=1.011548")  # G08
def node_limited(c):
    k, groups, kept, scale = c.sizes(K=(3, 3), groups=(4, 3), kept=(2, 2), scale=(2.5, 1.75))
    s = sigmoid(c.x @ c.W())
    bias = c.values("ffn.gate.bias", "E", 0.2 * np.sin(np.arange(c.E)))
    choose = (s + bias).reshape(c.T, groups, -1)
    _, i = c.top_k(limit(c, choose, c.top_k(choose, 2)[0].sum(-1), kept), k)
    n = picked(c, i).sum(0)
    c.extra(bias=bias + 0.001 * np.sign(n.mean() - n), balance=balance(n / c.T, normalise(s)) / k)
    return c.combine(i, scale * normalise(gather(s, i)), c.mlps())


@technique("top_p", "active=34; w=0.383124 0.200796 0.113632 0; sum_w=11.266954; norm=10.33919; sum=-0.36849; entropy=1.396369")  # G09
def top_p(c):
    p = c.sizes(p=(0.6, 0.8))
    p_all = softmax(c.x @ c.W())
    v, i = c.top_k(p_all, c.E)
    c.extra(entropy=entropy(p_all).mean())
    return c.combine(np.where(np.cumsum(v, 1) - v < p, i, -1), v, c.mlps())


def place(i, E, order=None):
    """The place of each choice in its expert's buffer: choice by choice, in each token by token (or in the order given)."""
    taken, places = np.zeros(E, int), np.zeros(i.shape, int)
    for k in range(i.shape[1]):
        for t in range(len(i)) if order is None else order:
            if i[t, k] >= 0:
                places[t, k] = taken[i[t, k]]
                taken[i[t, k]] += 1
    return places


def capacity(c, factor):
    return math.ceil(factor * c.T / c.E)


def ranked(priority):
    """Tokens by falling priority; how clearly they are told apart counts as a choice."""
    gaps = -np.diff(np.sort(-priority))
    if len(gaps):
        Case.margin = min(Case.margin, np.abs(gaps).min())
    return np.argsort(-priority, kind="stable")


def kept(c, i, w, keep, experts):
    """Dropped choices are none; the golden table lists them all the same."""
    y = c.combine(np.where(keep, i, -1), w, experts)
    c.facts = {"i": i[0].tolist(), "sum_i": int((i * (1 + np.arange(len(i)))[:, None]).sum()), "kept": int(keep.sum()), "dropped": int((~keep).sum())}
    return y


@technique("switch", "i=3; sum_i=378; w=0.383124; sum_w=6.996596; norm=7.26918; sum=1.00815; dropped=3")  # G01
def switch(c):
    factor = c.sizes(factor=(1.0, 0.75))
    w, i = c.top_k(softmax(c.x @ c.W()), 1)
    return kept(c, i, w, place(i, c.E) < capacity(c, factor), c.mlps())


@technique("first_come", "i=3 0; sum_i=768; sum_w=7.470375")  # G06, where it is compared with first-come places
def first_come(c):
    k, factor = c.sizes(K=(2, 3), factor=(1.0, 1.5))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    return kept(c, i, w, place(i, c.E) < capacity(c, factor), c.mlps())


def random_second(c, factor, threshold):
    w, i = c.top_k(softmax(c.x @ c.W()), 2)
    g, u = normalise(w), c.ids("u", ((M(c.T, 1, 7.0 + c.shift)[:, 0] + 1) / 2).round(6))
    wanted = np.stack([np.full(c.T, True), g[:, 1] / threshold > u], 1)
    Case.margin = min(Case.margin, np.abs(g[:, 1] - threshold * u).min())
    y = kept(c, i, g, wanted & (place(np.where(wanted, i, -1), c.E) < capacity(c, factor)), c.mlps())
    c.facts["second"] = int(wanted[:, 1].sum())
    return y


@technique("gshard", "i=3 0; sum_i=768; w=0.656124 0; sum_w=13.720868; norm=12.76927; sum=-0.87029; second=7; kept=22")  # G05
def gshard(c):
    return random_second(c, c.sizes(factor=(2.0, 1.25)), 0.5)


@technique("st_moe")
def st_moe(c):
    return random_second(c, c.sizes(factor=(1.25, 2.0)), 0.2)


@technique("batch_priority", "i=3 0; sum_i=768; w=0.383124 0.200796; sum_w=7.855877; norm=8.65911; sum=0.31192; kept=16")  # G06
def batch_priority(c):
    k, factor = c.sizes(K=(2, 3), factor=(0.5, 0.4))
    p = softmax(c.x @ c.W())
    w, i = c.top_k(p, k)
    return kept(c, i, w, place(i, c.E, ranked(p.max(-1))) < capacity(c, factor * k), c.mlps())


@technique("random_tokens")
def random_tokens(c):
    factor = c.sizes(factor=(1.0, 0.75))
    w, i = c.top_k(softmax(c.x @ c.W()), 1)
    order = ranked(c.input("priority", (c.T, 1, 7.0))[:, 0])
    return kept(c, i, w, place(i, c.E, order) < capacity(c, factor), c.mlps())


@technique("no_token_left_behind")
def no_token_left_behind(c):
    k, factor = c.sizes(K=(3, 4), factor=(1.0, 0.8))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    room, keep = np.full(c.E, capacity(c, factor)), np.zeros(i.shape, bool)
    for choice, t in np.ndindex(k, c.T):
        if not keep[t].any() and room[i[t, choice]] > 0:
            keep[t, choice] = True
            room[i[t, choice]] -= 1
    return kept(c, i, w, keep, c.mlps())


@technique("recycled")
def recycled(c):
    factor = c.sizes(factor=(1.0, 0.8))
    w, i = c.top_k(softmax(c.x @ c.W()), 1)
    room, keep = np.full(c.E, capacity(c, factor)), np.ones(i.shape, bool)
    for t in range(c.T):
        keep[t] = room[i[t, 0]] > 0
        room[i[t, 0]] -= keep[t, 0]
    free, lost = np.repeat(np.arange(c.E), room), np.flatnonzero(~keep[:, 0])
    for n, t in enumerate(lost):
        at = n * len(free) // len(lost) if len(lost) <= len(free) else n
        if at < len(free):
            i[t], keep[t] = free[at], True
    return kept(c, i, w, keep, c.mlps())


@technique("capacity_by_kind")
def capacity_by_kind(c):
    k, factor = c.sizes(K=(2, 3), factor=(1.1, 0.9))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    part = np.where(np.arange(c.E) < c.E - 2, 0.75, 1.0)
    room = np.ceil(factor * c.T * part / part.sum())
    experts = c.mlps(count=c.E - 2) + [lambda x: x, lambda x: 0 * x]
    return kept(c, i, w, place(i, c.E) < room[i], experts)


@technique("cosine", "i=4; sum_i=485; w=0.696375; sum_w=8.138462; norm=8.72917; sum=-2.20480")  # G11
def cosine(c):
    k, r = c.sizes(K=(1, 2), R=(4, 5))
    tau = c.values("ffn.gate.log_scale", "One", [math.log(1 / 0.3)])[0]
    projected = unit(c.x @ c.param("ffn.gate.project", "D R", c.D, r, 4.0))
    w, i = c.top_k(softmax(projected @ unit(c.param("ffn.gate.centre", "E R", c.E, r, 6.0)).T * math.exp(tau)), k)
    return c.combine(i, w, c.mlps())


def token_ids(c):
    return c.ids("ids", (7 * np.arange(c.T) + 3 + int(10 * c.shift)) % 101)


@technique("hash", "i=6; sum_i=350; w=1; sum_w=16; norm=19.04448; sum=-0.71707")  # G14
def hash_(c):
    c.sizes()
    i = token_ids(c) * 2654435761 % 2**32
    i = (i // 2**16 * c.E // 2**16)[:, None]
    return c.combine(i, np.ones(i.shape), c.mlps())


@technique("hash_table")
def hash_table(c):
    c.sizes()
    table = c.values("ffn.gate.table", "Id", (np.arange(101) * 5 + 2) % 7 % c.E)
    i = table[token_ids(c)].astype(int)[:, None]
    return c.combine(i, np.ones(i.shape), c.mlps())


@technique("dselect", "active=123; w=0 0 0.090724 0; sum_w=16; norm=14.48798; sum=6.14989")  # G15
def dselect(c):
    k, bits = c.sizes(K=(2, 3), bits=3)
    z = c.x @ c.param("ffn.gate.select", "D K Bit", c.D, k * bits, 8.0, scale=0.4)
    z = z.reshape(c.T, k, 1, bits)
    s = np.where(z <= -0.5, 0, np.where(z >= 0.5, 1, -2 * z**3 + 1.5 * z + 0.5))
    code = (np.arange(c.E)[:, None] >> np.arange(bits)[::-1]) & 1
    r = np.where(code == 1, s, 1 - s).prod(-1)
    q = (softmax(c.x @ c.param("ffn.gate.mix", "D K", c.D, k, 9.0))[..., None] * r).sum(1)
    return c.dense(q, c.mlps(), q > 0)


@technique("dense_softmax", "w=0.200796 0.0978 0.005124 0.383124; sum_w=16; norm=14.02908; sum=-0.95809")  # G19
def dense_softmax(c):
    c.sizes()
    return c.dense(softmax(c.x @ c.W()), c.mlps())


@technique("cosine_threshold", "active=16; w=0 0 0 1; sum_w=16; norm=16.94722; sum=1.89956")  # G20
def cosine_threshold(c):
    c.sizes()
    s = sigmoid(unit(c.x) @ unit(c.W(), 0))
    on = s > sigmoid(c.values("ffn.gate.threshold", "E", 0.5 + 0.1 * np.cos(np.arange(c.E))))
    on = on | ((~on.any(1))[:, None] & (s.argmax(1)[:, None] == np.arange(c.E)))
    return c.dense(on / on.sum(1, keepdims=True), c.mlps(), on)


def extended_router(c, more):
    """The router of E experts and of some more, one after the other."""
    W = np.concatenate([M(c.D, c.E, 2.0 + c.shift), M(c.D, more, 12.0 + c.shift)], 1)
    return c.values("ffn.gate.W", "D E", W)


@technique("null_experts", "i=3 9 0; sum_i=2014; w=0.656124 0 0.343876; sum_w=16; norm=15.66980; sum=-2.19487; balance=2.824975")  # G21
def null_experts(c):
    k, nulls = c.sizes(K=(3, 3), nulls=(4, 2))
    p = softmax(c.x @ extended_router(c, nulls))
    v, i = c.top_k(p, k)
    w = v * (i < c.E)
    f = one_hot(i, c.E + nulls).sum(1).mean(0)
    f[c.E :] = f[c.E :].mean()
    c.extra(balance=balance(f, p))
    y = c.combine(i, w / np.maximum(w.sum(1, keepdims=True), 1e-30), c.mlps() + [lambda x: 0 * x] * nulls)
    c.set["E"] = c.E + nulls
    return y


@technique("cheap_experts", "i=3 9; sum_i=1289; w=0.244471 0.239168; sum_w=10.588046; norm=6.80200; sum=4.22399")  # G22
def cheap_experts(c):
    k = c.sizes(K=(2, 3))
    w, i = c.top_k(softmax(c.x @ extended_router(c, 4)), k)
    # Vectors are rows of one matrix, mixes pairs of columns of another.
    vectors = c.values("ffn.experts[e].c", "D", M(2, c.D, 13.0 + c.shift), first=c.E)
    mixes = M(c.D, 4, 14.0 + c.shift).reshape(c.D, 2, 2).transpose(1, 0, 2)
    mixes = c.values("ffn.experts[e].mix", "D Two", mixes, first=c.E)

    def constant(e):
        def f(x):
            a = softmax(x @ mixes[e])
            return a[0] * x + a[1] * vectors[e]

        return f

    y = c.combine(i, w, c.mlps() + [constant(0), constant(1), lambda x: x, lambda x: 0 * x])
    c.set["E"] = c.E + 4
    return y


@technique("product_keys", "i=100 103 96 104; sum_i=60310; w=0.296128 0.266221 0.225458 0.212192; sum_w=16; norm=2.45718; sum=-2.63057")  # G23
def product_keys(c):
    n, k, r = c.sizes(N=(16, 5), K=(4, 3), R=(4, 3))
    c.set.pop("E", None), c.set.pop("H", None)
    q = c.x @ c.param("ffn.gate.query", "D Half R", c.D, 2 * r, 17.0)
    keys = c.values("ffn.gate.keys", "Half Row R", [M(n, r, 15.0 + c.shift), M(n, r, 16.0 + c.shift)])
    (sx, ix), (sy, iy) = c.top_k(q[:, :r] @ keys[0].T, k), c.top_k(q[:, r:] @ keys[1].T, k)
    s = (sx[:, :, None] + sy[:, None]).reshape(c.T, -1)
    v, j = c.top_k(s, k)
    i = gather((n * ix[:, :, None] + iy[:, None]).reshape(c.T, -1), j)
    u = c.values("ffn.experts[e].u", "One D", M(n * n, c.D, 18.0 + c.shift))
    out = c.values("ffn.experts[e].v", "One D", M(n * n, c.D, 19.0 + c.shift))
    return c.combine(i, softmax(v), [lambda x, e=e: gelu_tanh(x @ u[e]) * out[e] for e in range(n * n)])


@technique("prototypes", "i=3 6; sum_i=973; w=0.557804 0.362861; sum_w=17.386504; norm=17.24529; sum=1.74891")  # G24
def prototypes(c):
    k, groups = c.sizes(K=(1, 2), groups=(2, 2))
    v, i = c.top_k(softmax((c.x @ c.W()).reshape(c.T, groups, -1)), k)
    i = i + (np.arange(groups) * (c.E // groups))[:, None]
    return c.combine(i.reshape(c.T, -1), v.reshape(c.T, -1), c.mlps())


@technique("attention_router", "i=3 0; sum_i=660; w=0.501946 0.498054; sum_w=16; norm=16.01526; sum=-3.03204")  # G25
def attention_router(c):
    k = c.sizes(K=(2, 3))
    q, keys = c.x @ c.W("ffn.gate.query"), c.x @ c.W("ffn.gate.key", seed=3.0, scale=0.3)
    s = softmax(q[:, :, None] * keys[:, None, :]) @ (c.x @ c.W("ffn.gate.value", seed=21.0))[:, :, None]
    w, i = c.top_k(softmax(s[..., 0]), k)
    return c.combine(i, normalise(w), c.mlps())


@technique("normalised_logits", "i=3 0; sum_i=768; w=0.33286 0.195361; sum_w=9.209847; norm=8.06237; sum=-0.31112")  # G26
def normalised_logits(c):
    k = c.sizes(K=(2, 3))
    l = c.x @ c.W()
    w, i = c.top_k(softmax((l - l.mean(1, keepdims=True)) / l.std(1, keepdims=True)), k)
    return c.combine(i, w, c.mlps())


@technique("shared_scalar_gate")
def shared_scalar_gate(c):
    k, wide = c.sizes(K=(2, 3), wide=(12, 7))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    opened = sigmoid(c.x @ c.param("ffn.always.open", "D One", c.D, 1, 29.0))
    return c.combine(i, w, c.mlps()) + opened * c.mlp("ffn.always.expert", wide)(c.x)


def passing(c, i, a):
    """One expert with share a, and what passes by with the rest, as the bank's last."""
    return c.combine(np.concatenate([i, i * 0 + c.E], 1), np.concatenate([a, 1 - a], 1), c.mlps() + [lambda x: x])


def assigned(score, most):
    """The best balanced assignment: every token once, every expert in at most so many places."""
    from scipy.optimize import linear_sum_assignment

    tokens, places = linear_sum_assignment(-np.repeat(score, most, axis=1))
    assert (tokens == np.arange(len(score))).all()
    return places[:, None] // most


@technique("base", "i=3 8; w=0.839932 0.160068; norm=15.97046; sum=-2.50040", train=True)  # G12
@technique("base")
def base(c):
    c.sizes()
    s = c.x @ c.W(axis="Routed")
    i = assigned(s, -(-c.T // c.E)) if c.train else c.top_k(s, 1)[1]
    if c.train and c.kind == "golden":
        assert abs(gather(s, i).sum() - 34.810132) < 1e-6 and (i[:, 0] == s.argmax(1)).sum() == 13
        assert (i[:, 0] * (1 + np.arange(c.T))).sum() == 442
    return passing(c, i, sigmoid(gather(s, i)))


@technique("stable")
@technique("stable", train=True)
def stable(c):
    r = c.sizes(R=(5, 4))
    embed = c.param("ffn.gate.embed", "V R", 101, r, 23.0)[token_ids(c)]
    side, s = embed @ c.param("ffn.gate.router", "R Routed", r, c.E, 24.0), c.x @ c.W(axis="Routed")
    i = c.top_k(s if c.train else side, 1)[1]
    a, n = sigmoid(gather(s, i)), picked(c, i).sum(0)
    c.extra(
        balance=((n - n.mean()) / n.mean() * (one_hot(i, c.E) * a[..., None]).sum((0, 1))).sum(),
        distilled=(log_sum_exp(side) - gather(side, i)[:, 0]).mean(),
    )
    return passing(c, i, a)


G13 = "i=3; sum_i=371; w=0.839932; sum_w=13.547144; norm=15.33013; sum=0.00435; fullest=2.009485"


@technique("sinkhorn", G13, train=True)
@technique("sinkhorn")
def sinkhorn(c):
    k = c.sizes(K=(1, 2))
    l = z = c.x @ c.W()
    for _ in range(8):
        z = z - log_sum_exp(z.T)
        z = z - log_sum_exp(z)[:, None]
    # Of one token every plan is the same: by the lowest index.
    i = c.top_k(z if c.train else l, k)[1] if c.T > 1 or not c.train else np.zeros((1, k), int)
    c.extra(fullest=np.exp(z).sum(0).max())
    s = gather(l, i)
    return c.combine(i, sigmoid(s) if k == 1 else softmax(s), c.mlps())


@technique("adaptive_balance")
def adaptive_balance(c):
    k, capacity = c.sizes(K=(2, 3), capacity=(1.0, 1.25))
    l = c.x @ c.W()
    p = softmax((l - l.mean(1, keepdims=True)) / l.std(1, keepdims=True))
    w, i = c.top_k(p, k)
    n, coefficient = picked(c, i).sum(0), c.values("ffn.gate.coefficient", "One", [0.02])
    dropped = np.maximum(n - math.ceil(capacity * c.T * k / c.E), 0).sum() / (c.T * k)
    c.extra(balance=balance(n / c.T, p), dropped=dropped, coefficient=0.9 * coefficient + 0.1 * 0.5 * dropped)
    c.extras["aux"] = coefficient[0] * c.extras["ffn.gate.balance"]
    return c.combine(i, w, c.mlps())


@technique("random_expert")
def random_expert(c):
    seed, step = c.sizes(seed=(7, 11), step=(3, 5))
    i = (mix(key(seed, step, np.arange(c.T))) & U(2**31 - 1)).astype(int)[:, None] % c.E
    return c.combine(i, np.ones(i.shape), c.mlps())


@technique("growing_choices")
def growing_choices(c):
    step, steps = c.sizes(step=(3, 8), steps=(8, 8))
    v, i = c.top_k(c.x @ c.W(), math.ceil(c.E * step / steps))
    return c.combine(i, softmax(v), c.mlps())


@technique("near_experts")
def near_experts(c):
    k, nodes, share = c.sizes(K=(2, 3), nodes=(2, 2), share=(0.25, 0.4))
    p = softmax(c.x @ c.W())
    node = c.ids("node", np.arange(c.T) * 5 % nodes)
    cost = c.param("ffn.gate.cost", "Node E", nodes, c.E, 40.0)
    here = np.arange(c.E) // (c.E // nodes) == node[:, None]
    away = np.where(here, -1, p).max(1) - np.where(here, p, -1).max(1)
    rank = np.argsort(np.argsort(-away, kind="stable"), kind="stable")
    free = (away <= 0) | (rank < share * c.T)
    w, i = c.top_k(np.where(here | free[:, None], p, -1.0), k)
    c.extra(cost=(cost[node] * p).sum(1).mean())
    return c.combine(i, w, c.mlps())


@technique("dense_to_sparse")
@technique("dense_to_sparse", train=True)
def dense_to_sparse(c):
    seed, step, least = c.sizes(seed=(7, 11), step=(300, 700), least=(0.02, 0.05))
    noise = gumbel(key(seed, step, np.arange(c.T)), c.E) if c.train else 0.0
    g = softmax((c.x @ c.W() + noise) / (2.0 - 1.7 * step / 1000))
    if c.train:
        Case.margin = min(Case.margin, np.abs(g - least).min())
        return c.dense(g, c.mlps(), g >= least)
    w, i = c.top_k(g, 1)
    return c.combine(i, w, c.mlps())


@technique("dense_training")
@technique("dense_training", train=True)
def dense_training(c):
    k = c.sizes(K=(2, 3))
    p = softmax(c.x @ c.W())
    c.extra(mutual_information=entropy(p).mean() - entropy(p.mean(0)))
    if c.train:
        return c.dense(p, c.mlps())
    w, i = c.top_k(p, k)
    return c.combine(i, w, c.mlps())


@technique("task_level")
def task_level(c):
    k = c.sizes(K=(2, 3))
    task = c.ids("task", np.arange(c.T) * 2 % 3)
    w, i = c.top_k(softmax(c.param("ffn.gate.embed", "Task D", 3, c.D, 25.0)[task] @ c.W()), k)
    return c.combine(i, normalise(w), c.mlps())


@technique("domains")
def domains(c):
    c.sizes()
    i = c.ids("domain", np.arange(c.T) * 3 % c.E)[:, None]
    return c.combine(i, np.ones(i.shape), c.mlps())


@technique("sigma")
def sigma(c):
    k = c.sizes(K=(2, 3))
    w, i = c.top_k(sigmoid(c.x @ c.W()), k)
    return c.combine(i, w, c.mlps())


@technique("sparse_mixer")
def sparse_mixer(c):
    jitter = c.sizes(jitter=(0.3, 0.2))
    s = c.x @ c.W()

    def pick(left):
        best = left.max(-1, keepdims=True)
        far = (best - s) / np.maximum(np.abs(s), best) > 2 * jitter
        i = c.top_k(left, 1)[1]
        return i, gather(softmax(np.where(far, -np.inf, left)), i)

    i1, w1 = pick(s)
    i2, w2 = pick(np.where(i1 == np.arange(c.E), -np.inf, s))
    return c.combine(np.concatenate([i1, i2], 1), np.concatenate([w1, w2], 1), c.mlps())


@technique("hierarchical")
def hierarchical(c):
    k, groups, outer = c.sizes(K=(1, 2), groups=(4, 3), outer=(2, 2))
    g, at = c.top_k(c.x @ c.W("ffn.gate.group_W", "Group", groups, 26.0), outer)
    inner = np.take_along_axis((c.x @ c.W()).reshape(c.T, groups, -1), at[..., None], 1)
    v, i = c.top_k(inner, k)
    i = at[..., None] * (c.E // groups) + i
    return c.combine(i.reshape(c.T, -1), (softmax(g)[..., None] * softmax(v)).reshape(c.T, -1), c.mlps())


@technique("clusters")
def clusters(c):
    c.sizes()
    cluster = c.ids("cluster", np.arange(c.T) * 2 % 3)
    c.set["E"] = c.E + 1
    w, i = c.top_k(softmax(c.param("ffn.gate.embed", "Cluster D", 3, c.D, 25.0)[cluster] @ c.W(axis="Routed")), 1)
    return c.combine(np.concatenate([i, i * 0 + c.E], 1), np.concatenate([w, 1 - w], 1), c.mlps(count=c.E + 1))


@technique("multi_head")
def multi_head(c):
    k, width = c.sizes(K=(2, 3), W=(8, 14))
    narrow = width // 2
    parts = (c.x @ c.param("ffn.into", "D W", c.D, width, 27.0)).reshape(c.T, 2, narrow)
    W = c.param("ffn.parted.gate.W", "D E", narrow, c.E, 2.0)
    a = c.param("ffn.parted.experts[e].up", "D F", narrow, c.H, 10.0, each=1.0, count=c.E)
    b = c.param("ffn.parted.experts[e].down", "F D", c.H, narrow, 20.0, each=1.0, count=c.E)
    experts = [lambda x, a=a, b=b: relu(x @ a) @ b for a, b in zip(a, b)]
    outs = []
    for part in (parts[:, 0], parts[:, 1]):
        w, i = c.top_k(softmax(part @ W), k)
        outs.append(c.combine(i, normalise(w), experts, part))
    back = c.param("ffn.back", "Wide D", width, c.D, 28.0)
    return np.concatenate(outs, 1) @ back


@technique("laplace")
def laplace(c):
    k = c.sizes(K=(2, 3))
    away = c.x[:, None] - c.param("ffn.gate.centre", "E D", c.E, c.D, 2.0)
    w, i = c.top_k(softmax(-np.sqrt((away * away).sum(-1))), k)
    return c.combine(i, w, c.mlps())


@technique("random_routed")
def random_routed(c):
    c.sizes()
    domain = c.ids("domain", np.arange(c.T) % 2)
    table = c.values("ffn.gate.table", "Domain V", (np.arange(202) * 11 + 5) % 13 % (c.E // 2)).reshape(2, 101)
    i = (domain * (c.E // 2) + table[domain, token_ids(c)].astype(int))[:, None]
    return c.combine(i, np.ones(i.shape), c.mlps())


@technique("lora_mixture")
def lora_mixture(c):
    rank, scale = c.sizes(rank=(2, 3), scale=(0.5, 1.5))
    a = c.param("adapters.experts[e].a", "D Rank", c.D, rank, 10.0, each=1.0, count=c.E)
    b = c.param("adapters.experts[e].b", "Rank D", rank, c.D, 20.0, each=1.0, count=c.E)
    experts = [lambda x, a=a, b=b: scale * (x @ a @ b) for a, b in zip(a, b)]
    return c.mlp("base")(c.x) + c.dense(softmax(c.x @ c.W("adapters.gate.W")), experts)


def body(spec, act, gated):
    @technique(spec)
    def f(c):
        k = c.sizes(K=(2, 3))
        e, at = dict(each=1.0, count=c.E), "ffn.experts[e]."
        w, i = c.top_k(softmax(c.x @ c.W()), k)
        up = c.param(at + "up", "D F", c.D, c.H, 10.0, **e)
        down = c.param(at + "down", "F D", c.H, c.D, 20.0, **e)
        if gated:
            gate = c.param(at + "gate", "D F", c.D, c.H, 40.0, **e)
            experts = [lambda x, u=u, g=g, d=d: (act(x @ g) * (x @ u)) @ d for u, g, d in zip(up, gate, down)]
        else:
            first = c.param(at + "up_bias", "F", 1, c.H, 50.0, **e)
            second = c.param(at + "down_bias", "D", 1, c.D, 60.0, **e)
            experts = [
                lambda x, u=u, p=p, d=d, q=q: act(x @ u + p[0]) @ d + q[0] for u, p, d, q in zip(up, first, down, second)
            ]
        return c.combine(i, normalise(w), experts)


body("body_relu", relu, False)
body("body_gelu", gelu, False)
body("body_gelu_tanh", gelu_tanh, False)
body("body_geglu", gelu, True)
body("body_swiglu", silu, True)


@technique("unequal_widths")
def unequal_widths(c):
    c.E = 6
    k = c.sizes(K=(2, 3))
    c.set.pop("H", None)
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    experts = []
    for first, width in ((0, 3), (2, 6), (4, 9)):
        experts += c.mlps(count=2, H=width, first=first, seeds=(10.0 + first, 20.0 + first))
    return c.combine(i, normalise(w), experts)


@technique("fine_grained")
def fine_grained(c):
    k, m = c.sizes(K=(1, 2), m=(2, 5))
    w, i = c.top_k(softmax(c.x @ c.W(E=m * c.E)), m * k)
    return c.combine(i, w, c.mlps(count=m * c.E, H=c.H // m))


@technique("shared")
def shared(c):
    k = c.sizes(K=(2, 3))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    both = c.mlp("ffn.always0")(c.x) + c.mlp("ffn.always1", seeds=(32.0, 33.0))(c.x)
    return c.combine(i, normalise(w), c.mlps()) + both


@technique("residual")
def residual(c):
    k = c.sizes(K=(1, 2))
    mix = softmax(c.x @ c.param("mix", "D Two", c.D, 2, 29.0))
    w, i = c.top_k(softmax(c.x @ c.W("routed.gate.W")), k)
    routed = c.combine(i, w, c.mlps("routed.experts[e]"))
    return mix[:, :1] * routed + mix[:, 1:] * c.mlp("dense")(c.x)


@technique("pyramid")
def pyramid(c):
    c.sizes()
    D, H, E, h = c.D, c.H, c.E, c.x
    small, large = [], []
    per_layer = dict(layer=3.0, layers=3)
    for size, found in ((E, small), (2 * E, large)):
        for path, axes, rows, columns, seed, each, count in (
            ("gate.W", "D E", D, size, 2.0, 0.0, 1),
            ("experts[e].up", "D F", D, H, 10.0, 1.0, size),
            ("experts[e].down", "F D", H, D, 20.0, 1.0, size),
        ):
            found.append(c.param("layers[l].routed." + path, axes, rows, columns, seed, each=each, count=count, **per_layer))
    up = c.param("layers[l].dense.up", "D F", D, H, 30.0, scale=0.25, **per_layer)
    down = c.param("layers[l].dense.down", "F D", H, D, 31.0, scale=0.25, **per_layer)
    for l in range(3):
        W, a, b = (values[l] for values in (large if l == 2 else small))
        w, i = c.top_k(softmax(h @ W), 1)
        experts = [lambda x, a=a, b=b: relu(x @ a) @ b for a, b in zip(a, b)]
        h = h + c.combine(i, w, experts, h) + relu(h @ up[l]) @ down[l]
    return h


@technique("universal")
def universal(c):
    k = c.sizes(K=(2, 3))
    W, experts, h = c.W(), c.mlps(), c.x
    norms = c.param("layers[l].norm.w", "D", 1, c.D, 70.0, layer=3.0, layers=3)
    for l in range(3):
        x = h / np.sqrt((h * h).mean(1, keepdims=True) + 1e-6) * norms[l][0]
        w, i = c.top_k(softmax(x @ W), k)
        h = h + c.combine(i, normalise(w), experts, x)
    return h


@technique("factorised")
def factorised(c):
    k, r = c.sizes(K=(2, 3), R=(3, 4))
    e, at = dict(each=1.0, count=c.E), "ffn.experts[e]."
    centre = c.param("centre", "R R2", r, r, 34.0)
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    up = c.param(at + "up", "R F", r, c.H, 10.0, **e)
    start = c.param(at + "from", "D R2", c.D, r, 40.0, **e)
    down = c.param(at + "down", "F D", c.H, c.D, 20.0, **e)
    experts = [lambda x, u=u, s=s, d=d: relu(x @ s @ centre.T @ u) @ d for u, s, d in zip(up, start, down)]
    return c.combine(i, normalise(w), experts)


@technique("mixlora")
def mixlora(c):
    k, r = c.sizes(K=(2, 3), rank=(2, 3))
    e, at = dict(each=1.0, count=c.E), "ffn.experts[e]."
    up, down = c.param("base_up", "D F", c.D, c.H, 30.0), c.param("base_down", "F D", c.H, c.D, 31.0)
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    parts = zip(
        c.param(at + "up_a", "D Rank", c.D, r, 10.0, **e),
        c.param(at + "up_b", "Rank F", r, c.H, 20.0, **e),
        c.param(at + "down_a", "F Rank", c.H, r, 40.0, **e),
        c.param(at + "down_b", "Rank D", r, c.D, 50.0, **e),
    )

    def adapted(ua, ub, da, db):
        return lambda x: relu(x @ (up + ua @ ub)) @ (down + da @ db)

    return c.combine(i, normalise(w), [adapted(*p) for p in parts])


@technique("modality")
def modality(c):
    k = c.sizes(K=(2, 3))
    ids = c.ids("modality", np.arange(c.T) // 3 % 2)
    w, i = c.top_k(softmax((c.x + c.param("ffn.gate.embed", "Modality D", 2, c.D, 25.0)[ids]) @ c.W()), k)
    return c.combine(i, normalise(w), c.mlps())


@technique("conditional")
@technique("conditional", train=True)
def conditional(c):
    k, seed, step, off = c.sizes(K=(2, 3), seed=(7, 11), step=(3, 5), off=(0.2, 0.3))
    open_ = sigmoid(c.x @ c.param("w", "D", 1, c.D, 29.0)[0])[:, None]
    c.extra(at="", budget=abs(open_.mean() - 0.5))
    if c.train:
        open_ = np.where(uniform_of(mix(key(seed, step, np.arange(c.T)))) < off, 0.0, open_[:, 0])[:, None]
    w, i = c.top_k(softmax(c.x @ c.W("routed.gate.W")), k)
    routed = c.combine(i, normalise(w), c.mlps("routed.experts[e]"))
    return (1 - open_) * c.mlp("dense")(c.x) + open_ * routed


@technique("carried_logits")
def carried_logits(c):
    k = c.sizes(K=(2, 3))
    h, s, per_layer = c.x, np.zeros((c.T, c.E)), dict(layer=3.0, layers=3)
    Ws = c.param("layers[l].W", "D E", c.D, c.E, 2.0, scale=0.5, **per_layer)
    carries = c.param("layers[l].carry", "E2 E", c.E, c.E, 35.0, scale=0.25, **per_layer)
    at, e = "layers[l].ffn.experts[e].", dict(each=1.0, count=c.E)
    ups = c.param(at + "up", "D F", c.D, c.H, 10.0, scale=0.5, **e, **per_layer)
    downs = c.param(at + "down", "F D", c.H, c.D, 20.0, scale=0.5, **e, **per_layer)
    for W, carry, up, down in zip(Ws, carries, ups, downs):
        s = h @ W + s @ carry
        w, i = c.top_k(softmax(s), k)
        h = h + c.combine(i, w, [lambda x, a=a, b=b: relu(x @ a) @ b for a, b in zip(up, down)], h)
    return h


def attention(c, q, k, v):
    """Causal; q [T, heads, width], k and v the same or without heads."""
    k, v = (np.broadcast_to(a if a.ndim == 3 else a[:, None], q.shape) for a in (k, v))
    scores = np.einsum("shd,thd->hst", q, k) / math.sqrt(q.shape[-1])
    seen = np.tril(np.ones((c.T, c.T), bool))
    return np.einsum("hst,thd->shd", softmax(np.where(seen, scores, -np.inf)), v)


def chosen(w, i, size):
    """Weights as a row over everything that could be chosen."""
    row = np.zeros((len(w), size))
    np.put_along_axis(row, i, w, 1)
    return row


@technique("attention_experts")
def attention_experts(c):
    k, width, at = c.sizes(K=(2, 3)), 5 if c.kind == "odd" else 4, "attention."
    w, i = c.top_k(softmax(c.x @ c.W(at + "choose.W")), k)
    c.choose(i, normalise(w))
    heads = dict(each=1.0, count=c.E)
    query = np.array(c.param(at + "query.experts[e].W", "D Dh", c.D, width, 10.0, **heads))
    output = np.array(c.param(at + "output.experts[e].W", "Dh D", width, c.D, 40.0, **heads))
    keys = c.x @ c.param(at + "key", "D Dh", c.D, width, 11.0)
    values = c.x @ c.param(at + "value", "D Dh", c.D, width, 12.0)
    # All heads, then those that were chosen.
    y = attention(c, np.einsum("td,edh->teh", c.x, query), keys, values) * chosen(normalise(w), i, c.E)[..., None]
    return np.einsum("teh,ehd->td", y, output)


@technique("switch_head")
def switch_head(c):
    k, heads, own, at = *c.sizes(K=2, Heads=(2, 3), Each=(4, 3)), "attention."
    if c.kind == "odd":
        del c.set["E"]
    width = c.H if c.kind == "odd" else 4
    routed = []
    for name, seed in (("source", 2.0), ("destination", 3.0)):
        scores = sigmoid(c.x @ c.param(at + name + ".W", "D Head Own", c.D, heads * own, seed)).reshape(c.T, heads, own)
        w, i = c.top_k(scores, k)
        routed.append(np.stack([chosen(w[:, h], i[:, h], own) for h in range(heads)], 1))
        c.choose((i + own * np.arange(heads)[:, None]).reshape(c.T, -1), w.reshape(c.T, -1))
    source, destination = routed
    bank = dict(each=1.0, count=heads * own)
    value = np.array(c.param(at + "value.experts[e].W", "D Dh", c.D, width, 10.0, **bank)).reshape(heads, own, c.D, width)
    output = np.array(c.param(at + "output.experts[e].W", "Dh D", width, c.D, 40.0, **bank)).reshape(heads, own, width, c.D)
    q, keys = ((c.x @ c.param(at + name, "D Head Dh", c.D, heads * width, seed)).reshape(c.T, heads, width)
               for name, seed in (("query", 11.0), ("key", 12.0)))
    y = attention(c, q, keys, np.einsum("the,td,hedw->thw", source, c.x, value))
    return np.einsum("the,thw,hewd->td", destination, y, output)


def subset(c, where, first, count, x, seed):
    """A gate's softmax over some experts, as weights of each."""
    p = softmax(x @ c.W(where + ".W", "Some", count, seed))
    c.choose(np.tile(np.arange(count) + first, (c.T, 1)), p)
    return p


@technique("multi_gate", "w=0.200796 0.0978 0.005124 0.383124; sum_w=16; first=14.02908; first_sum=-0.95809")  # G19, the first task
def multi_gate(c):
    c.sizes()
    experts = c.mlps("experts.experts[e]")
    outs = np.stack([f(c.x) for f in experts], 1)
    all_ = np.tile(np.arange(c.E), (c.T, 1))
    ps = [softmax(c.x @ c.W(name + ".W", seed=seed)) for name, seed in (("gate1", 2.0), ("gate2", 3.0))]
    c.choose(all_, ps[1])
    c.choose(all_, ps[0])
    c.routes.reverse()
    ys = [np.einsum("te,ted->td", p, outs) for p in ps]
    c.first = ys[0]
    towers = [c.param(name + ".W", "D Out", c.D, c.D, seed) for name, seed in (("tower1", 50.0), ("tower2", 51.0))]
    return np.concatenate([y @ tower for y, tower in zip(ys, towers)], 1)


@technique("progressive_extraction")
def progressive_extraction(c):
    own, common = c.sizes(Own=2, Common=(2, 1))
    if c.kind == "odd":
        del c.set["E"]
    n = 2 * own + common
    one, two = (c.mlps(name + ".experts[e]", n, seeds=seeds) for name, seeds in (("bank1", (10.0, 20.0)), ("bank2", (60.0, 80.0))))
    def mix(p, first, experts, xs):
        return sum(p[:, j : j + 1] * experts[first + j](xs[first + j]) for j in range(p.shape[1]))
    p1 = subset(c, "first1", 0, own + common, c.x, 2.0)
    pc = subset(c, "common1", 0, n, c.x, 3.0)
    p2 = subset(c, "second1", own, own + common, c.x, 4.0)
    first, both, second = mix(p1, 0, one, [c.x] * n), mix(pc, 0, one, [c.x] * n), mix(p2, own, one, [c.x] * n)
    xs = [first] * own + [both] * common + [second] * own
    q1, q2 = subset(c, "first2", 0, own + common, first, 5.0), subset(c, "second2", own, own + common, second, 6.0)
    return np.concatenate([mix(q1, 0, two, xs), mix(q2, own, two, xs)], 1)


@technique("by_outputs")
def by_outputs(c):
    r = c.sizes(R=(3, 4))
    c.set.pop("H", None)
    tau, e = 0.5, dict(each=1.0, count=c.E)
    base = c.x @ c.param("base", "D Out", c.D, c.D, 32.0)
    downs = c.param("adapters.experts[e].A", "D R", c.D, r, 10.0, **e)
    ups = c.param("adapters.experts[e].B", "R D", r, c.D, 40.0, **e)
    outs = np.stack([c.x @ a @ b for a, b in zip(downs, ups)], 1)
    flat = unit(outs.reshape(c.T, -1))
    p = softmax(flat @ c.param("W", "All G", c.E * c.D, c.E, 2.0) / tau)
    c.choose(np.tile(np.arange(c.E), (c.T, 1)), np.ones((c.T, c.E)))
    return base + np.einsum("te,ted->td", p, outs)


@technique("three_banks")
def three_banks(c):
    e, domains, tasks = c.sizes(E=(4, 6), Domains=3, Tasks=(2, 3))
    domain, task = c.ids("domain", np.arange(c.T) * 5 % domains), 1
    p = softmax(c.x @ c.W("common.gate.W", E=e))
    common = c.dense(p, c.mlps("common.experts[e]", e))
    def bank(experts, gate, count, own, seeds, seed):
        z = c.x @ c.param(gate + ".W", "D Others", c.D, count, seed)
        share = sigmoid(c.values(gate + ".share", "", [0.3 + 0.1 * count])[0])
        mine = np.arange(count) == np.broadcast_to(own, c.T)[:, None]
        w = np.where(mine, share, (1 - share) * softmax(np.where(mine, -np.inf, z)))
        return c.dense(w, c.mlps(experts + ".experts[e]", count, seeds=seeds))
    of_domain = bank("domains", "of_domain", domains, domain, (40.0, 50.0), 3.0)
    of_task = bank("tasks", "of_task", tasks, task, (60.0, 80.0), 4.0)
    fuse = softmax(c.values("fuse", "Three", [0.5, -0.2, 0.1]))
    return fuse[0] * common + fuse[1] * of_domain + fuse[2] * of_task


@technique("self_contrast")
def self_contrast(c):
    k, v = c.sizes(K=(2, 3), V=(12, 7))
    s = c.x @ c.W("W")
    head, experts = c.param("head", "D V", c.D, v, 45.0), c.mlps("experts.experts[e]")
    z, i = c.top_k(s, k + 1)
    log_softmax = lambda x: x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
    strong = log_softmax((c.x + c.combine(i[:, :k], softmax(z[:, :k]), experts)) @ head)
    weak = log_softmax((c.x + c.combine(i[:, k:], softmax(z[:, k:]), experts)) @ head)
    return np.where(strong >= strong.max(1, keepdims=True) + math.log(0.1), 1.5 * strong - 0.5 * weak, -30.0)


@technique("halting")
def halting(c):
    k = c.sizes(K=(2, 3))
    W, experts, h = c.W(scale=0.1), c.mlps(), c.x
    halt, bias = c.param("halt", "D", 1, c.D, 46.0, scale=0.1)[0], c.values("halt_bias", "", [-0.4])[0]
    y, left = 0.0, np.ones((c.T, 1))
    for l in range(3):
        w, i = c.top_k(softmax(h @ W), k)
        h = h + c.combine(i, normalise(w), experts, h)
        stop = 1.0 if l == 2 else sigmoid(h @ halt + bias)[:, None]
        y, left = y + left * stop * h, left * (1 - stop)
    return y


@technique("mixture_of_heads")
def mixture_of_heads(c):
    k, always, at = *c.sizes(K=(2, 3), always=(2, 1)), "attention."
    routed, width = (4, 4) if c.kind != "odd" else (c.E, c.H)
    heads = always + routed
    a = softmax(c.x @ c.param(at + "mix", "D Two", c.D, 2, 29.0))
    w, i = c.top_k(softmax(c.x @ c.W(at + "routed_W", E=routed)), k)
    common = softmax(c.x @ c.param(at + "always_W", "D Always", c.D, always, 30.0))
    weight = np.concatenate([a[:, :1] * common, a[:, 1:] * chosen(w, i, routed)], 1)
    q, keys, values = (
        (c.x @ c.param(at + name, "D Head Dh", c.D, heads * width, seed)).reshape(c.T, heads, width)
        for name, seed in (("query", 10.0), ("key", 11.0), ("value", 12.0))
    )
    y = attention(c, q, keys, values) * weight[..., None]
    return y.reshape(c.T, -1) @ c.param(at + "output", "Head Dh D", heads * width, c.D, 13.0)


def per_slot(c, x, experts, into, back):
    """y = back · experts(into · x); `into` and `back` [tokens, experts, slots]."""
    rows = np.einsum("tep,td->epd", into, x)
    return np.einsum("tep,epd->td", back, np.stack([f(row) for f, row in zip(experts, rows)]))


@technique("expert_choice", "i=11 14 0 1; sum_i=1233; w=0.708889 0.204386 0.200796 0.179592; sum_w=10.974627; norm=10.60809; sum=-0.32313")  # G10
def expert_choice(c):
    ratio = c.sizes(c=(2, 1))
    p, experts, y = softmax(c.x @ c.W()), c.mlps(), np.zeros_like(c.x)
    c.w, c.i = c.top_k(p.T, -(-c.T * ratio // c.E))
    for e, slot in np.ndindex(c.i.shape):
        t = c.i[e, slot]
        y[t] += c.w[e, slot] * experts[e](c.x[t])
    return y


@technique("mixture_of_depths", "i=0 10 13 14; sum_i=37; norm=14.54724; sum=2.06507")  # G27
def mixture_of_depths(c):
    per = c.sizes(per=(4, 5))
    c.set.pop("E", None)
    score = c.x @ c.param("depth.gate.w", "D", c.D, 1, 22.0)[:, 0]
    (expert,), y = c.mlps("depth.experts[e]", 1), c.x.copy()
    w, t = c.top_k(score, -(-c.T // per))
    c.i = np.sort(t)[None]
    y[t] += w[:, None] * expert(c.x[t])
    return y


def soft_weights(c, x, where, slots):
    phi = c.param(where + ".phi", "D E P", c.D, c.E * slots, 11.0)
    logits = unit(x) @ unit(phi, 0)
    shape = (c.T, c.E, slots)
    c.w = softmax(logits)
    return softmax(logits, 0).reshape(shape), c.w.reshape(shape)


@technique("soft", "w=0.049465 0.037384 0.13583 0.037281; sum_w=16; norm=1.38812; sum=-0.54439")  # G16
def soft(c):
    slots = c.sizes(P=(2, 3))
    return per_slot(c, c.x, c.mlps(), *soft_weights(c, c.x, "ffn.gate", slots))


@technique("hopfield")
def hopfield(c):
    slots, memory = c.sizes(P=(2, 1), M=(5, 7))
    keys, values = (c.param("remember." + name, "D M", c.D, memory, seed) for name, seed in (("key", 41.0), ("value", 42.0)))
    x = softmax(2 * c.x @ keys) @ values.T
    return per_slot(c, x, c.mlps(), *soft_weights(c, x, "ffn.gate", slots))


def merged(c, where, weights, x, **sizes):
    """One expert relu(x A1) A2 of all experts' matrices; weights [E], or [T, E] for one of each token's."""
    a, b = ups_and_downs(c, where)
    up, down = (np.einsum("...e,eij->...ij", weights, m) for m in (a, b))
    return (relu(x[..., None, :] @ up) @ down)[..., 0, :]


def ups_and_downs(c, where):
    each = dict(each=1.0, count=c.E)
    return (np.array(c.param(where + ".up", "D F", c.D, c.H, 10.0, **each)),
            np.array(c.param(where + ".down", "F D", c.H, c.D, 20.0, **each)))


@technique("merged_by_mean", "w=0.115107 0.152493 0.108932 0.123602; sum_w=1; norm=0.94149; sum=-0.34819")  # G17
def merged_by_mean(c):
    normalised = c.sizes(normalised=(False, True))
    mean, W = c.x.mean(0), c.W()
    p = softmax(unit(mean) @ unit(W, 0) if normalised else mean @ W)
    c.w = p[None]
    return merged(c, "ffn.experts[e]", p, c.x)


@technique("segments", "norm=1.99174; sum=0.63181")  # G18
def segments(c):
    c.sizes()
    segment = 1 if c.kind == "one" else 5 if c.kind == "odd" else 4
    if c.kind == "odd":
        c.T, c.inputs = 20, []
        c.x = c.input("x", (c.T, c.D, 1.0))
    if c.kind != "golden":
        c.set.update(N=c.T, Tok=segment)
    means = c.x.reshape(-1, segment, c.D).mean(1)
    p = softmax(np.concatenate([means[:1], means[:-1]]) @ c.W())
    return merged(c, "ffn.experts[e]", np.repeat(p, segment, 0), c.x)


@technique("merged_top_k")
def merged_top_k(c):
    k = c.sizes(K=(2, 3))
    w, i = c.top_k(softmax(c.x @ c.W()), k)
    return merged(c, "ffn.experts[e]", chosen(normalise(w), i, c.E), c.x)


@technique("mixture_of_tokens")
def mixture_of_tokens(c):
    group = c.sizes(Group=(4, 3))
    c.inputs = []
    x = c.input("x", (c.T, group * c.D, 1.0)).reshape(c.T, group, c.D)
    p = softmax(x @ c.W(), 1)
    experts = c.mlps()
    rows = np.einsum("tge,tgd->etd", p, x)
    y = np.einsum("tge,etd->tgd", p, np.stack([f(row) for f, row in zip(experts, rows)]))
    return y.reshape(c.T, -1)


@technique("merged_equally")
def merged_equally(c):
    r, e = c.sizes(R=(3, 4)), dict(each=1.0, count=c.E)
    c.set.pop("H", None)
    a = np.mean(c.param("adapters.experts[e].A", "D R", c.D, r, 10.0, **e), 0)
    b = np.mean(c.param("adapters.experts[e].B", "R D", r, c.D, 40.0, **e), 0)
    return c.x + gelu(c.x @ a) @ b


@technique("merged_vectors")
def merged_vectors(c):
    c.sizes()
    c.set.pop("H", None)
    p = softmax(c.x @ c.W("choose.W"))
    vectors = np.array(c.param("vectors.experts[e].v", "D", 1, c.D, 43.0, each=1.0, count=c.E))[:, 0]
    return c.x @ c.param("base", "D Out", c.D, c.D, 32.0) * (p @ vectors)


@technique("soft_adapters")
def soft_adapters(c):
    r, slots, e = *c.sizes(R=(3, 4), P=(1, 2)), dict(each=1.0, count=c.E)
    c.set.pop("H", None)
    downs = c.param("adapters.experts[e].A", "D R", c.D, r, 10.0, **e)
    ups = c.param("adapters.experts[e].B", "R D", r, c.D, 40.0, **e)
    experts = [lambda x, a=a, b=b: x @ a @ b for a, b in zip(downs, ups)]
    base = c.x @ c.param("base", "D Out", c.D, c.D, 32.0)
    return base + per_slot(c, c.x, experts, *soft_weights(c, c.x, "adapters.gate", slots))


def check(spec, c, y, golden):
    """The case against the line of the golden table."""
    i, w = getattr(c, "i", np.zeros((1, 1), int)), getattr(c, "w", np.zeros((1, 1)))
    found = {
        "i": i[0].tolist(),
        "sum_i": int((i * (1 + np.arange(len(i)))[:, None]).sum()),
        "w": w[0][:4].tolist(),
        "sum_w": w.sum(),
        "norm": np.linalg.norm(y),
        "sum": y.sum(),
        "active": int((i >= 0).sum()),
        **{name.rsplit(".", 1)[-1]: value.ravel() for name, value in c.extras.items()},
        "first": np.linalg.norm(getattr(c, "first", 0)),
        "first_sum": np.sum(getattr(c, "first", 0)),
    } | c.facts
    for part in golden.split("; "):
        name, wanted = part.split("=")
        got = np.atleast_1d(found[name])
        wanted = np.array([float(value) for value in wanted.split()])
        assert np.allclose(got[: len(wanted)], wanted, atol=6e-6), f"{spec}: {name} is {got}, the table has {wanted}"


def record(name, spec, c, y, more):
    """The case as cases.rs reads it."""
    rows = y @ np.cos(np.arange(y.shape[1]))
    return {
        "name": f"{name}, {c.kind}",
        "spec": spec,
        "tokens": c.T,
        "set": [[name, str(value).lower() if value is True else str(value)] for name, value in c.set.items()],
        "inputs": c.inputs,
        "params": c.params,
        "routes": c.routes,
        **more,
        "y": {
            "norm": round(float(np.linalg.norm(y)), 7),
            "sum": round(float(y.sum()), 7),
            "rows": [round(float(v), 6) for v in rows],
        },
    }


def write(name, cases):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


def main():
    cases = []
    for (spec, train), (f, golden) in TECHNIQUES.items():
        for c in (
            Case("golden"),
            Case("one", shift=0.37, T=1),
            Case("odd", shift=1.25, T=23, D=9, E=6, H=5, K=3),
        ):
            c.train = train
            y = f(c)
            if golden and c.kind == "golden":
                check(spec, c, y, golden)
            extras = [
                {"output": name, "values": [round(float(v), 8) for v in value.ravel()]} for name, value in c.extras.items()
            ]
            more = ({"train": True} if c.train else {}) | ({"extras": extras} if extras else {})
            cases.append(record(f"{spec}{', training' * train}", spec, c, y, more))
    write("cases.json", cases)
    print(f"{len(cases)} cases; the narrowest choice is decided by {Case.margin:.1e}")


if __name__ == "__main__":
    main()
