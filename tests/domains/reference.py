"""What the references of the domain models share: numbers without a random generator, formulas in f64, and the record of a case.

A number of a parameter is offset + scale * u, u in [-1, 1) from a hash of its path, its layer, its expert and its place, rounded to
f32; so weights need not be stored, and a reader in another language makes the same ones (domains.rs).
"""

import json
import math
import os

import numpy as np

MASK = (1 << 64) - 1


def fnv(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    return h


def noise(name, shape, layer=0, expert=0):
    """Of [-1, 1), 24 bits each: splitmix64 of the name's hash and the place."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(fnv(name)) + np.uint64(layer << 48) + np.uint64(expert << 32) + np.arange(count, dtype=np.uint64)
        z = z * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(float) / 2**23 - 1).reshape(shape)


def softmax(x, axis=-1):
    z = np.exp(x - x.max(axis, keepdims=True))
    return z / z.sum(axis, keepdims=True)


sigmoid = lambda x: 1 / (1 + np.exp(-x))
silu = lambda x: x * sigmoid(x)
relu = lambda x: np.maximum(x, 0)
erf = np.vectorize(math.erf, otypes=[float])
gelu = lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))
normalise = lambda x: x / x.sum(-1, keepdims=True)


class Case:
    """One case of one model: sizes by axis name, and what was asked for while the reference ran."""

    def __init__(self, spec, name, tokens, passes=None, settings=None, also=(), **sizes):
        self.spec, self.name, self.tokens, self.passes = spec, name, tokens, passes or [tokens]
        self.settings, self.also, self.sizes = settings or {}, also, sizes
        self.inputs, self.params, self.routes, self.outputs = [], {}, [], []
        self.margin = math.inf
        # In the place of ids that are drawn, and of states.
        self.text, self.states = None, {}
        # What is recorded of some: the tokens that go on from it, its states after ten steps.
        self.goes_on, self.after_ten = [], []

    def input(self, name, axes, scale=1.0):
        shape = [self.tokens if a == "S" else self.sizes[a] for a in axes.split()]
        values = (scale * noise(f"{self.name}.{name}", shape)).astype(np.float32)
        return self.given(name, values).astype(float)

    def given(self, name, values):
        values = np.asarray(values)
        self.inputs.append({"name": name, "values": [short(v) for v in values.ravel().tolist()]})
        return values

    def ids(self, name, count):
        if self.text is not None:
            return self.given(name, self.text)
        return self.given(name, ((noise(f"{self.name}.{name}", [self.tokens]) + 1) / 2 * count).astype(int))

    def param(self, path, axes, layer=0, expert=0, scale=None, offset=0.0, **sizes):
        """`scale` is by default 1.7 / sqrt(the last axis), which keeps products about as large as what goes in."""
        axes = axes.split()
        shape = [sizes.get(a) or self.sizes[a] for a in axes]
        scale = scale if scale is not None else 1.7 / math.sqrt(shape[-1])
        about = {"path": path, "axes": axes, "scale": scale, "offset": offset}
        assert self.params.setdefault(path, about) == about, f"{path} differs"
        return (offset + scale * noise(path, shape, layer, expert)).astype(np.float32).astype(float)

    def weight(self, path, axes, **at):
        """Of a norm: near 1."""
        return self.param(path, axes, scale=0.25, offset=1.0, **at)

    def rms(self, x, path, axes, eps, layer=0):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self.weight(path, axes, layer=layer)

    def layer_norm(self, x, path, axes, eps, layer=0):
        x = x - x.mean(-1, keepdims=True)
        bias = self.param(path + ".b", axes, layer=layer, scale=0.1)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self.weight(path + ".w", axes, layer=layer) + bias

    def top_k(self, x, k):
        order = np.argsort(-x, -1, kind="stable")
        ranked = np.take_along_axis(x, order, -1)
        if k < x.shape[-1]:
            gap = ranked[..., k - 1] - ranked[..., k]
            self.margin = min(self.margin, gap[np.isfinite(gap)].min())
        return ranked[..., :k], order[..., :k]

    def route(self, i, w):
        """Records a route that is run, position by position."""
        self.routes.append({"i": i.ravel().tolist(), "w": [short(v) for v in w.ravel()]})

    def combine(self, x, i, w, expert):
        """y[t] = sum over k of w[t, k] * expert(i[t, k], x[t]); -1 is no choice."""
        self.route(i, w)
        y = None
        for e in sorted(set(i[i >= 0].ravel().tolist())):
            t, k = np.nonzero(i == e)
            rows = expert(e, x[t])
            y = np.zeros((len(x),) + rows.shape[1:]) if y is None else y
            np.add.at(y, t, w[t, k].reshape((-1,) + (1,) * (rows.ndim - 1)) * rows)
        return y

    def output(self, name, values):
        assert np.isfinite(values).all() and 1e-3 < np.abs(values).max() < 50, f"{self.name}: {name} is out of bounds"
        self.outputs.append({"name": name, "values": [short(v) for v in values.ravel()]})
        self.last = values[-1] if values.ndim else values

    def record(self):
        # Choices must be the same in f32: what is left out must be clearly less than what is taken.
        assert self.margin > 1e-4, f"{self.name}: near a tie by {self.margin}"
        settings = [[k, str(v)] for k, v in self.settings.items()]
        return {
            "name": self.name, "spec": self.spec, "tokens": self.tokens, "passes": self.passes, "set": settings,
            **({"also": self.also} if self.also else {}),
            "inputs": self.inputs, "params": list(self.params.values()), "routes": self.routes, "outputs": self.outputs,
            **({"goes_on": self.goes_on} if self.goes_on else {}),
            **({"after_ten": self.after_ten} if self.after_ten else {}),
        }

    def logits(self, reference, text):
        """What the reference gives behind such a text, in the place of this case's own."""
        other = Case(self.spec, self.name, len(text), settings=self.settings, **self.sizes)
        other.text = np.array(text)
        reference(other)
        self.margin = min(self.margin, other.margin)
        return other.last


def greedy(case, reference, count):
    """The likeliest token each time, `count` times."""
    text = list(case.inputs[-1]["values"])
    for _ in range(count):
        ranked = np.sort(logits := case.logits(reference, text))
        case.margin = min(case.margin, ranked[-1] - ranked[-2])
        text.append(int(logits.argmax()))
    return text[-count:]


def ten_steps(case, reference):
    """The states after ten steps with the same input, layer by layer, in f32."""
    states = {}
    for _ in range(10):
        step = Case(case.spec, case.name, case.tokens, settings=case.settings, also=case.also, **case.sizes)
        step.states = states
        states = reference(step)
        case.margin = min(case.margin, step.margin)
    return np.concatenate(list(states.values())).tolist()


def beam(case, reference, start, width, count):
    """The likeliest of `width` texts that are kept at each of `count` tokens, by the sum of the logarithms of probabilities; none says a
    token twice in a row."""
    kept = [(0.0, list(case.inputs[-1]["values"][:start]))]
    for _ in range(count):
        longer = []
        for score, text in kept:
            logits = case.logits(reference, text)
            likely = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
            longer += [(score + more, text + [token]) for token, more in enumerate(likely) if token != text[-1]]
        longer.sort(key=lambda one: -one[0])
        # Which are kept, and in which order, must not depend on rounding.
        case.margin = min([case.margin] + [longer[at][0] - longer[at + 1][0] for at in range(width)])
        kept = longer[:width]
    return kept[0][1][start:]


def short(value):
    return value if isinstance(value, int) else float(f"{value:.8g}")


def rope_half(x, theta, positions):
    """x [S, ..., Dh], its two halves the coordinates of Dh / 2 planes."""
    d = x.shape[-1]
    angle = positions[:, None] * theta ** (-2 * np.arange(d // 2) / d)
    angle = np.concatenate([angle, angle], -1).reshape((len(x),) + (1,) * (x.ndim - 2) + (d,))
    turned = np.concatenate([-x[..., d // 2 :], x[..., : d // 2]], -1)
    return x * np.cos(angle) + turned * np.sin(angle)


def rope_interleaved(x, theta, positions):
    """x [S, ..., Dh], neighbours the coordinates of a plane."""
    d = x.shape[-1]
    angle = positions[:, None] * theta ** (-2 * np.arange(d // 2) / d)
    angle = np.repeat(angle, 2, -1).reshape((len(x),) + (1,) * (x.ndim - 2) + (d,))
    turned = np.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * np.cos(angle) + turned * np.sin(angle)


def causal(q, k, v, scale):
    """q, k [S, H, d], v [S, H, e]."""
    scores = np.einsum("shd,thd->hst", q, k) * scale
    scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
    return np.einsum("hst,thd->shd", softmax(scores), v)


def swiglu(c, path, layer=0, expert=0, F=None):
    size = {"F": F} if F else {}
    gate, up = (c.param(f"{path}.{n}", "F D", layer=layer, expert=expert, **size) for n in ("gate", "up"))
    down = c.param(f"{path}.down", "D F", layer=layer, expert=expert, **size)
    return lambda x: (silu(x @ gate.T) * (x @ up.T)) @ down.T


def mlp(c, path, act, layer=0, expert=0):
    up, up_bias = c.param(path + ".up", "F D", layer=layer, expert=expert), c.param(path + ".up_bias", "F", layer=layer, expert=expert, scale=0.2)
    down, down_bias = c.param(path + ".down", "D F", layer=layer, expert=expert), c.param(path + ".down_bias", "D", layer=layer, expert=expert, scale=0.2)
    return lambda x: act(x @ up.T + up_bias) @ down.T + down_bias


def seen(q, k, v):
    """All look at all: q [N, H, d], k [M, H, d], v [M, H, e]."""
    return np.einsum("hnm,mhd->nhd", softmax(np.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5), v)


def places(i, experts, order=None):
    """The place of each choice in its expert's buffer: first choices before second ones, tokens in order."""
    taken, found = np.zeros(experts, int), np.zeros(i.shape, int)
    for k in range(i.shape[1]):
        for t in range(len(i)) if order is None else order:
            found[t, k] = taken[i[t, k]]
            taken[i[t, k]] += 1
    return found


def write(cases):
    """One file for each model, beside this one."""
    folder = os.path.dirname(os.path.abspath(__file__))
    specs = {}
    for case in cases:
        specs.setdefault(case.spec, []).append(case.record())
    for spec, records in specs.items():
        path = os.path.join(folder, spec + ".json")
        with open(path, "w") as file:
            lines = [json.dumps(record, separators=(",", ":")) for record in records]
            file.write("[\n" + ",\n".join(lines) + "\n]\n")
        size = os.path.getsize(path)
        assert size < 300_000, f"{path} has {size} bytes"
        print(f"{spec}: {len(records)} cases, {size} bytes, margin {min(c.margin for c in cases if c.spec == spec):.2g}")
