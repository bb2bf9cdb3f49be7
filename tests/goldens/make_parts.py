#!/usr/bin/env python3
"""Writes parts.json: what state mixers, parts of vision and recommender models, and experts of images and of whole layers, of
examples/catalogue must give, in one pass and in several.

Each is computed here in f64 NumPy from its definition, mixers position by position. Where `transformers` can be imported, its own
modules of the mixers are given the same weights and must give the same. Otherwise as make_goldens.py.
"""

import numpy as np
from make_goldens import Case, attention, normalise, record, relu, sigmoid, silu, softmax, write

softplus = lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
even = lambda x, eps, axes: x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)


class Part(Case):
    """A case whose passes end after some positions."""

    def __init__(self, kind, passes, **sizes):
        super().__init__(kind, T=sum(passes), **sizes)
        self.passes = passes

    layer = None  # the one whose parameters are asked for

    def p(self, path, axes, shape, seed, scale=1.0, **experts):
        """A parameter of any number of axes: waves of rows and columns, the last axis being the columns."""
        columns = shape[-1] if len(shape) > 1 else 1
        rows = int(np.prod(shape)) // columns
        if self.layer is None:
            found = self.param(path, axes, rows, columns, seed, scale, **experts)
        else:
            known = list(self.params)
            found = self.param("layers[l]." + path, axes, rows, columns, seed, scale, layer=3.0, layers=self.layer + 1, **experts)
            found = found[self.layer]
            if any(param["path"] == "layers[l]." + path for param in known):
                self.params = known
        return [one.reshape(shape) for one in found] if experts else found.reshape(shape)


def convolution(x, w, bias=0.0):
    """w [channels, taps]."""
    taps = w.shape[1]
    before = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    return np.stack([(before[s : s + taps] * w.T).sum(0) for s in range(len(x))]) + bias


PARTS = {}
# Elements of an image (or a sequence), at the golden sizes and at the odd ones.
IMAGES = {"patches": (3 * 8 * 4, 2 * 6 * 9), "shifted_windows": (6 * 6 * 4, 8 * 4 * 3)}
IMAGES |= {"convolution_experts": (3 * 4 * 6, 2 * 5 * 3), "patch_experts": (2 * 4 * 6, 3 * 3 * 6), "sparse_prompts": (3 * 8, 5 * 6)}


def part(spec, **odd):
    def register(f):
        PARTS[spec] = (f, odd)
        return f

    return register


@part("short_convolution", K=3)
def short_convolution(c, K=4):
    D = c.D
    mixed = silu(convolution(c.x, c.p("mix.w", "D Tap", (D, K), 2.0), c.p("mix.bias", "D", (D,), 3.0)))
    return c.x + convolution(mixed, c.p("plain.w", "D Tap", (D, K - 1), 4.0))


def mamba_block(c, x, at, I, N, R, K):
    D = c.D
    w_in = c.p(at + "in_proj", "Half Inner D", (2, I, D), 2.0, 0.5)
    conv, bias = c.p(at + "conv", "Inner Tap", (I, K), 3.0), c.p(at + "conv_bias", "Inner", (I,), 4.0, 0.3)
    x_proj = c.p(at + "x_proj", "Low Inner", (R + 2 * N, I), 5.0, 0.5)
    dt_proj, dt_bias = c.p(at + "dt_proj", "Inner R", (I, R), 6.0), c.p(at + "dt_bias", "Inner", (I,), 7.0)
    A_log, skip = c.p(at + "A_log", "Inner State", (I, N), 8.0), c.p(at + "skip", "Inner", (I,), 9.0)
    out = c.p(at + "out_proj", "D Inner", (D, I), 10.0, 0.5)
    c.weights = dict(w_in=w_in, conv=conv, bias=bias, x_proj=x_proj, dt_proj=dt_proj, dt_bias=dt_bias, A_log=A_log, skip=skip, out=out)
    u, z = x @ w_in[0].T, x @ w_in[1].T
    u = silu(convolution(u, conv, bias))
    low = u @ x_proj.T
    dt, B, C = softplus(low[:, :R] @ dt_proj.T + dt_bias), low[:, R : R + N], low[:, R + N :]
    h, y = np.zeros((I, N)), []
    for s in range(len(x)):
        h = np.exp(dt[s][:, None] * -np.exp(A_log)) * h + (dt[s] * u[s])[:, None] * B[s]
        y.append(h @ C[s] + skip * u[s])
    return (np.array(y) * silu(z)) @ out.T


@part("mamba", I=10, N=3, R=2, K=3)
def mamba(c, I=12, N=4, R=3, K=4):
    y = mamba_block(c, c.x, "mix.", I, N, R, K)
    against(c, y, "mamba", lambda t: t.mamba(c, I, N, R, K))
    return c.x + y


@part("mamba2", Heads=6, P=3, N=3, G=3, K=2)
def mamba2(c, Heads=4, P=4, N=5, G=2, K=4):
    D, I, rep = c.D, Heads * P, Heads // G
    w_in = c.p("mix.in_proj", "Row D", (2 * I + 2 * G * N + Heads, D), 2.0, 0.5)
    conv = c.p("mix.conv", "Channel Tap", (I + 2 * G * N, K), 3.0)
    bias = c.p("mix.conv_bias", "Channel", (I + 2 * G * N,), 4.0, 0.3)
    dt_bias, A_log = (c.p("mix." + name, "Group Member", (G, rep), seed).ravel() for name, seed in (("dt_bias", 5.0), ("A_log", 6.0)))
    skip = c.p("mix.skip", "Group Member", (G, rep), 7.0).ravel()
    norm = c.p("mix.norm", "Group Member P", (G, rep, P), 8.0).ravel()
    out = c.p("mix.out_proj", "D Group Member P", (D, G, rep, P), 9.0, 0.5).reshape(D, I)
    c.weights = dict(w_in=w_in, conv=conv, bias=bias, dt_bias=dt_bias, A_log=A_log, skip=skip, norm=norm, out=out)
    all = c.x @ w_in.T
    z, seen, dt = all[:, :I], all[:, I : 2 * I + 2 * G * N], softplus(all[:, 2 * I + 2 * G * N :] + dt_bias)
    seen = silu(convolution(seen, conv, bias))
    u = seen[:, :I].reshape(-1, Heads, P)
    B, C = (part.reshape(-1, G, N).repeat(rep, 1) for part in (seen[:, I : I + G * N], seen[:, I + G * N :]))
    h, y = np.zeros((Heads, P, N)), []
    for s in range(c.T):
        h = np.exp(-dt[s] * np.exp(A_log))[:, None, None] * h + (dt[s][:, None] * u[s])[:, :, None] * B[s][:, None, :]
        y.append((h * C[s][:, None, :]).sum(-1) + skip[:, None] * u[s])
    gated = (np.array(y).reshape(-1, I) * silu(z)).reshape(c.T, G, -1)
    y = (even(gated, 1e-5, -1).reshape(c.T, I) * norm) @ out.T
    against(c, y, "mamba2", lambda t: t.mamba2(c, Heads, P, N, G, K))
    return c.x + y


@part("gated_delta", Heads=3, Reps=1, Dk=2, Dv=5, K=3)
def gated_delta(c, Heads=2, Reps=2, Dk=4, Dv=3, K=4):
    D, Row = c.D, 2 * Dk + 2 * Reps * Dv
    qkvz = c.p("mix.qkvz", "Head Row D", (Heads, Row, D), 2.0, 0.5)
    ba = c.p("mix.ba", "Head Two Rep D", (Heads, 2, Reps, D), 3.0, 0.5)
    conv = c.p("mix.conv", "Channel Tap", (Heads * (2 * Dk + Reps * Dv), K), 4.0)
    A_log, dt_bias = (c.p("mix." + name, "Head Rep", (Heads, Reps), seed) for name, seed in (("A_log", 5.0), ("dt_bias", 6.0)))
    norm = c.p("mix.norm", "Dv", (Dv,), 7.0)
    out = c.p("mix.out_proj", "D Head Rep Dv", (D, Heads, Reps, Dv), 8.0, 0.5)
    c.weights = dict(qkvz=qkvz, ba=ba, conv=conv, A_log=A_log, dt_bias=dt_bias, norm=norm, out=out)
    all = np.einsum("sd,hrd->shr", c.x, qkvz)
    q, k, v, z = np.split(all, np.cumsum([Dk, Dk, Reps * Dv]), -1)
    flat = np.concatenate([part.reshape(c.T, -1) for part in (q, k, v)], -1)
    q, k, v = np.split(silu(convolution(flat, conv)), [Heads * Dk, 2 * Heads * Dk], -1)
    q, k = q.reshape(-1, Heads, Dk), k.reshape(-1, Heads, Dk)
    v, z = v.reshape(-1, Heads, Reps, Dv), z.reshape(-1, Heads, Reps, Dv)
    q, k = (part / np.sqrt((part * part).sum(-1, keepdims=True) + 1e-6) for part in (q, k))
    two = np.einsum("sd,htrd->shtr", c.x, ba)
    beta, decay = sigmoid(two[:, :, 0]), np.exp(-np.exp(A_log) * softplus(two[:, :, 1] + dt_bias))
    M_, y = np.zeros((Heads, Reps, Dk, Dv)), []
    for s in range(c.T):
        M_ = M_ * decay[s][..., None, None]
        wrong = v[s] - np.einsum("hrkv,hk->hrv", M_, k[s])
        M_ = M_ + np.einsum("hk,hrv->hrkv", k[s], beta[s][..., None] * wrong)
        y.append(np.einsum("hrkv,hk->hrv", M_, q[s] / np.sqrt(Dk)))
    y = even(np.array(y), 1e-6, -1) * norm * silu(z)
    y = np.einsum("shrv,dhrv->sd", y, out)
    against(c, y, "qwen3_next", lambda t: t.gated_delta(c, Heads, Reps, Dk, Dv, K))
    return c.x + y


@part("lightning_attention", Heads=3, Dh=6)
def lightning_attention(c, Heads=4, Dh=4):
    D, layer, depth = c.D, 1, 4
    qkv = c.p("mix.qkv", "Head Three Dh D", (Heads, 3, Dh, D), 2.0, 0.5)
    norm = c.p("mix.norm", "Head Dv", (Heads, Dh), 3.0)
    gate = c.p("mix.gate", "Head Dv D", (Heads, Dh, D), 4.0)
    out = c.p("mix.out_proj", "D Head Dv", (D, Heads, Dh), 5.0, 0.5)
    c.weights = dict(qkv=qkv, norm=norm, gate=gate, out=out)
    q, k, v = np.moveaxis(silu(np.einsum("sd,htkd->shtk", c.x, qkv)), 2, 0)
    slope = 2.0 ** (-8 / Heads * (np.arange(Heads) + 1)) * (1 - layer / (depth - 1 + 1e-5) + 1e-5)
    M_, y = np.zeros((Heads, Dh, Dh)), []
    for s in range(c.T):
        M_ = np.exp(-slope)[:, None, None] * M_ + k[s][:, :, None] * v[s][:, None, :]
        y.append(np.einsum("hkv,hk->hv", M_, q[s]))
    y = even(np.array(y), 1e-6, (-2, -1)) * norm
    y = np.einsum("shv,dhv->sd", sigmoid(np.einsum("sd,hvd->shv", c.x, gate)) * y, out)
    against(c, y, "minimax", lambda t: t.lightning(c, Heads, Dh, layer, depth))
    return c.x + y


@part("hybrid", E=3, H=5, I=10, N=3, R=2)
def hybrid(c, E=4, H=6, L=4, I=12, N=4, R=3, K=2, P=4):
    D, h = c.D, c.x
    for c.layer in range(L):
        x = even(h, 1e-6, -1) * c.p("norm1.w", "D", (D,), 20.0)
        if c.layer % P == P // 2:
            q, k = c.p("mix.q", "Head Dh D", (2, 4, D), 21.0), c.p("mix.k", "Dh D", (4, D), 22.0)
            v, o = c.p("mix.v", "Dh D", (4, D), 23.0), c.p("mix.o", "D Head Dh", (D, 2, 4), 24.0, 0.5)
            y = attention(c, np.einsum("sd,hkd->shk", x, q), x @ k.T, x @ v.T)
            h = h + np.einsum("shk,dhk->sd", y, o)
        else:
            h = h + mamba_block(c, x, "mix.", I, N, R, 4)
        x = even(h, 1e-6, -1) * c.p("norm2.w", "D", (D,), 25.0)
        if c.layer % 2 == 0:
            up, down = c.p("ffn.up", "F D", (H, D), 26.0, 0.5), c.p("ffn.down", "D F", (D, H), 27.0, 0.5)
            h = h + relu(x @ up.T) @ down.T
            continue
        w, i = c.top_k(softmax(x @ c.p("ffn.gate.W", "E D", (E, D), 28.0).T), K)
        many = dict(each=1.0, count=E)
        ups = c.p("ffn.experts[e].up", "F D", (H, D), 29.0, 0.5, **many)
        downs = c.p("ffn.experts[e].down", "D F", (D, H), 30.0, 0.5, **many)
        experts = [lambda x, up=up, down=down: relu(x @ up.T) @ down.T for up, down in zip(ups, downs)]
        h = h + c.combine(i, normalise(w), experts, x)
    return h


@part("patches", C=2, Y=6, X=9, Size=3, W=5)
def patches(c, C=3, Y=8, X=4, Size=2, W=6):
    w = c.p("embed.w", "D Pixel", (W, C * Size * Size), 2.0, 0.5)
    rows, columns = Y // Size, X // Size
    bias, token = c.p("embed.bias", "D", (W,), 3.0), c.p("embed.token", "D", (W,), 4.0)
    position = c.p("embed.position", "Patch D", (rows * columns + 1, W), 5.0)
    image, y = c.x.reshape(c.T, C, Y, X), np.zeros((c.T, rows * columns + 1, W))
    y[:, 0] = token
    for r, k in np.ndindex(rows, columns):
        square = image[:, :, r * Size : (r + 1) * Size, k * Size : (k + 1) * Size]
        y[:, 1 + r * columns + k] = square.reshape(c.T, -1) @ w.T + bias
    return (y + position).reshape(c.T, -1)


def window_attention(c, x, at, Heads, Dh, Size, shift):
    """x [images, Y, X, D]; the mask as Swin's authors number it, region by region."""
    D, (T, Y, X) = x.shape[-1], x.shape[:3]
    qkv, bias = c.p(at + "qkv", "Three Head Dh D", (3, Heads, Dh, D), 2.0, 0.5), c.p(at + "qkv_bias", "Three Head Dh", (3, Heads, Dh), 3.0)
    offset = c.p(at + "offset", "Offset Head", ((2 * Size - 1) ** 2, Heads), 4.0)
    out, out_bias = c.p(at + "out_proj", "D Head Dh", (D, Heads, Dh), 5.0, 0.5), c.p(at + "out_bias", "D", (D,), 6.0)
    x = np.roll(x, (-shift, -shift), (1, 2))
    region, number = np.zeros((Y, X)), 0
    for rows in (slice(0, -Size), slice(-Size, -shift or None), slice(-shift, None)) if shift else ():
        for columns in (slice(0, -Size), slice(-Size, -shift or None), slice(-shift, None)):
            region[rows, columns], number = number, number + 1
    y = np.zeros_like(x)
    for r, k in np.ndindex(Y // Size, X // Size):
        here = (slice(r * Size, (r + 1) * Size), slice(k * Size, (k + 1) * Size))
        q, key, v = np.moveaxis(np.einsum("nyxd,thkd->nyxthk", x[:, here[0], here[1]], qkv) + bias, 3, 0).reshape(3, T, -1, Heads, Dh)
        scores = np.einsum("nphk,nohk->nhpo", q / np.sqrt(Dh), key)
        for a, b in np.ndindex(Size * Size, Size * Size):
            down, right = a // Size - b // Size + Size - 1, a % Size - b % Size + Size - 1
            scores[:, :, a, b] += offset[down * (2 * Size - 1) + right]
        flat = region[here].ravel()
        scores = scores - 100.0 * (flat[:, None] != flat[None, :])
        mixed = np.einsum("nhpo,nohk,dhk->npd", softmax(scores), v, out) + out_bias
        y[:, here[0], here[1]] = mixed.reshape(T, Size, Size, D)
    return np.roll(y, (shift, shift), (1, 2))


@part("shifted_windows", Y=8, X=4, D=3, Heads=1, Dh=4, Size=4, Shift=2)
def shifted_windows(c, Y=6, X=6, D=4, Heads=2, Dh=3, Size=3, Shift=1):
    h = c.x.reshape(c.T, Y, X, D)
    h = h + window_attention(c, h, "still.", Heads, Dh, Size, 0)
    h = h + window_attention(c, h, "moved.", Heads, Dh, Size, Shift)
    quarters = [h[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
    return np.concatenate(quarters, -1).reshape(c.T, -1)


def convolved(image, w):
    """image [C, Y, X], w [F, C, side, side] with an odd side: every place with what is around it, zeros outside."""
    (F, C, side, _), (_, Y, X) = w.shape, image.shape
    y = np.zeros((Y, X, F))
    for a, b, down, right in np.ndindex(Y, X, side, side):
        r, k = a + down - side // 2, b + right - side // 2
        if 0 <= r < Y and 0 <= k < X:
            y[a, b] += w[:, :, down, right] @ image[:, r, k]
    return y


@part("convolution_experts", C=2, Y=5, X=3, F=3, E=6, K=3, Size=5)
def convolution_experts(c, C=3, Y=4, X=6, F=4, E=4, K=2, Size=3):
    images = c.x.reshape(c.T, C, Y, X)
    p = softmax(images.mean((2, 3)) @ c.p("choose.W", "E D", (E, C), 2.0, 4.0).T)
    kernels = c.p("kernels.experts[e].w", "F C Down Right", (F, C, Size, Size), 3.0, 0.5, each=1.0, count=E)
    if c.kind == "golden":
        # With all channels of all experts in one layer and no choice, it is the dense one.
        whole = relu(convolved(images[0], np.concatenate(kernels)))
        assert np.allclose(whole, np.concatenate([relu(convolved(images[0], w)) for w in kernels], -1))
    w, i = c.top_k(p, K)
    w = normalise(w)
    c.choose(i, w)
    y = [sum(w[s, k] * relu(convolved(images[s], kernels[i[s, k]])) for k in range(K)) for s in range(c.T)]
    return np.array(y).reshape(c.T, -1)


@part("patch_experts", C=3, Y=3, X=6, Size=3, E=4, H=4, taken=1, D=27)
def patch_experts(c, C=2, Y=4, X=6, Size=2, E=3, H=5, taken=2, D=8):
    W = c.p("seen.gate.W", "E D", (E, D), 2.0)
    many = dict(each=1.0, count=E)
    ups, downs = c.p("seen.experts[e].up", "F D", (H, D), 3.0, **many), c.p("seen.experts[e].down", "D F", (D, H), 4.0, **many)
    y = np.zeros((c.T, D))
    for s, image in enumerate(c.x.reshape(c.T, C, Y, X)):
        cut = image.reshape(C, Y // Size, Size, X // Size, Size)
        patches = cut.transpose(1, 3, 0, 2, 4).reshape(-1, D)
        v, t = c.top_k((patches @ W.T).T, taken)
        for e in range(E):
            y[s] += softmax(v[e]) @ (relu(patches[t[e]] @ ups[e].T) @ downs[e].T)
    return y


@part("sparse_prompts", D=6, Tok=5, E=3, P=1)
def sparse_prompts(c, D=8, Tok=3, E=4, P=2):
    q = c.p("q", "H D", (D, D), 2.0, 0.3)
    W = c.p("prompts.gate.W", "E D", (E, D), 3.0)
    prompts = c.p("prompts.experts[e].p", "P D", (P, D), 4.0, each=1.0, count=E)
    x = c.x.reshape(c.T, Tok, D)
    w, i = c.top_k(softmax(x.mean(1) @ W.T), 1)
    c.choose(i, w)
    h = np.concatenate([np.stack([w[s, 0] * prompts[i[s, 0]] for s in range(c.T)]), x], 1)
    scores = np.einsum("sad,hd,sbh->sab", h, q, h)
    return (h + softmax(scores) @ h).reshape(c.T, -1)


@part("generated_expert", E=6, H=5, K=3, L=3, Z=4, Hyper=3, R=2)
def generated_expert(c, E=8, H=6, K=2, L=2, Z=5, Hyper=4, R=3):
    D, h = c.D, c.x
    w = c.p("read.w", "Hyper Z", (Hyper, 2 * Z), 2.0)
    down, up = c.p("down", "R D Hyper", (R, D, Hyper), 3.0, 0.5), c.p("up", "D R Hyper", (D, R, Hyper), 4.0, 0.5)
    for c.layer in range(L):
        of_expert, of_layer = c.p("of_expert", "E Z", (E, Z), 5.0), c.p("of_layer", "Z", (Z,), 6.0)
        p, i = c.top_k(softmax(h @ c.p("choose.W", "E D", (E, D), 7.0).T), K)
        many = dict(each=1.0, count=E)
        ups, downs = c.p("experts.experts[e].up", "F D", (H, D), 8.0, 0.5, **many), c.p("experts.experts[e].down", "D F", (D, H), 9.0, 0.5, **many)
        experts = [lambda x, a=a, b=b: relu(x @ a.T) @ b.T for a, b in zip(ups, downs)]
        made = np.zeros_like(h)
        for t in range(c.T):
            others = np.delete(of_expert, i[t], 0).mean(0)
            condition = relu(w @ np.concatenate([others, of_layer]))
            made[t] = (up @ condition) @ relu((down @ condition) @ h[t])
        h = h + c.combine(i, normalise(p), experts, h) + made
    return h


@part("recommender", V=7, U=5, F=4)
def recommender(c, V=10, U=7, F=6, G=5):
    D, T = c.D, c.T
    item, user = c.p("item", "V D", (V, D), 2.0), c.p("user", "U D", (U, D), 3.0)
    items = c.ids("items", (np.arange(T * 4) * 7 + 3) % (V + 2) - 2).reshape(T, 4)
    users = c.ids("users", np.where(np.arange(T * 4) // 4 == 1, -1, (np.arange(T * 4) * 5 + 1) % (U + 1) - 1)).reshape(T, 4)
    W, b = c.p("crossed.W", "D2 D", (D, D), 4.0, 0.5), c.p("crossed.b", "D", (D,), 5.0)
    up, up_bias = c.p("over_it.up", "F D", (F, D), 6.0), c.p("over_it.up_bias", "F", (F,), 7.0)
    down, down_bias = c.p("over_it.down", "G F", (G, F), 8.0), c.p("over_it.down_bias", "G", (G,), 9.0)
    w, score_bias = c.p("score.w", "G", (G,), 10.0), c.p("score.b", "", (1,), 11.0)
    bought = np.array([sum((item[i] for i in row if i >= 0), np.zeros(D)) for row in items])
    seen = np.array([np.mean([user[i] for i in row if i >= 0], 0) if (row >= 0).any() else np.zeros(D) for row in users])
    x = c.x + (c.x * bought + c.x * seen + bought * seen)
    h = c.x * (x @ W.T + b) + x
    top = relu(relu(h @ up.T + up_bias) @ down.T + down_bias)
    return top * sigmoid(top @ w + score_bias)[:, None]


def against(c, y, name, make):
    """The same by the module of `transformers`."""
    try:
        import parts_by_transformers as theirs
    except ImportError:
        return
    found = make(theirs)
    assert np.abs(found - y).max() < 2e-5, f"{name}: transformers differs by {np.abs(found - y).max()}"
    print(f"{name}, {c.kind}: transformers gives the same")


def main():
    cases = []
    for spec, (f, odd) in PARTS.items():
        golden, other = IMAGES.get(spec, (8, 9))
        for c in (
            Part("golden", [5, 1, 10], D=golden),
            Part("one", [1], shift=0.37, D=golden),
            Part("odd", [1, 1, 18, 3], shift=1.25, D=other),
        ):
            if c.kind == "odd":
                c.set.update({"D": c.D} | odd if spec not in IMAGES else odd)
            y = f(c, **odd) if c.kind == "odd" else f(c)
            cases.append(record(spec, spec, c, y, {"passes": c.passes}))
    write("parts.json", cases)
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
