#!/usr/bin/env python3
"""Writes NAME.json for the models of examples/domains: what each must choose and give.

Every model is computed here in f64 NumPy from its description, without moec. Needs NumPy; run it after changing a model, and look
at the difference.
"""

import math

import numpy as np

from reference import *

CASES = []


def case(spec, name, **about):
    def register(reference):
        made = Case(spec, f"{spec}-{name}", **about)
        reference(made)
        CASES.append(made)
        return reference

    return register


def made(name):
    return next(case for case in CASES if case.name == name)


# M01


def byte_attention(c, x, l, at="layers[l].attn"):
    P = np.arange(c.tokens)
    q = c.rms(x @ c.param(at + ".q", "Q D", layer=l).T, at + ".q_norm.w", "Q", 1e-5, l)
    k = c.rms(x @ c.param(at + ".k", "P D", layer=l).T, at + ".k_norm.w", "P", 1e-5, l)
    v = x @ c.param(at + ".v", "P D", layer=l).T
    q, k, v = (z.reshape(c.tokens, c.sizes["Head"], -1) for z in (q, k, v))
    y = causal(rope_half(q, 1e4, P), rope_half(k, 1e4, P), v, q.shape[-1] ** -0.5)
    return np.einsum("shd,ohd->so", y, c.param(at + ".o", "D Head Dh", layer=l, scale=0.2))


def byte_decoder(c, ffn):
    ids = c.ids("ids", 256)
    h = c.param("table", "V D", scale=1.0)[ids]
    for l in range(4):
        h = h + byte_attention(c, c.rms(h, "layers[l].norm1.w", "D", 1e-5, l), l)
        h = h + ffn(c, c.rms(h, "layers[l].norm2.w", "D", 1e-5, l), l)
    c.output("logits", c.rms(h, "norm.w", "D", 1e-5) @ c.param("head", "V D").T)


BYTES = dict(V=256, D=64, Q=64, P=64, Head=4, Dh=16)


@case("byte_decoder", "cached", tokens=21, passes=[16, 1, 1, 3], E=8, F=96, **BYTES)
@case("byte_decoder", "one", tokens=1, E=8, F=96, **BYTES)
def m01(c):
    def ffn(c, x, l):
        w, i = c.top_k(softmax(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T), 2)
        experts = [swiglu(c, "layers[l].ffn.experts[e]", l, e) for e in range(8)]
        return c.combine(x, i, w, lambda e, x: experts[e](x))

    byte_decoder(c, ffn)


made("byte_decoder-cached").goes_on = greedy(made("byte_decoder-cached"), m01, 32)


# M02


def group_limited(c, scores, bias, k, groups, kept, scale):
    choose = (scores + bias).reshape(len(scores), groups, -1)
    _, best = c.top_k(np.sort(choose, -1)[..., -2:].sum(-1), kept)
    inside = (best[:, :, None] == np.arange(groups)).any(1)
    _, i = c.top_k(np.where(inside[..., None], choose, -np.inf).reshape(len(scores), -1), k)
    return i, scale * normalise(np.take_along_axis(scores, i, -1))


def latent_attention(c, x, l, at="layers[l].attn"):
    """As published: keys and values are rebuilt for every head, and looked at in the ordinary way."""
    P = np.arange(c.tokens)
    param = lambda name, axes, **about: c.param(f"{at}.{name}", axes, layer=l, **about)
    inner = c.rms(x @ param("q_down", "Rq D").T, at + ".q_norm.w", "Rq", 1e-6, l)
    q = np.einsum("sr,hdr->shd", inner, param("q_plain", "Head Dn Rq"))
    qr = rope_interleaved(np.einsum("sr,hdr->shd", inner, param("q_rotary", "Head Dh Rq")), 1e4, P)
    latent = c.rms(x @ param("kv_down", "Rk D").T, at + ".kv_norm.w", "Rk", 1e-6, l)
    kr = rope_interleaved(x @ param("k_rotary", "Dh D").T, 1e4, P)
    k = np.einsum("sr,hdr->shd", latent, param("k_plain", "Head Dn Rk"))
    v = np.einsum("sr,hdr->shd", latent, param("values", "Head Dv Rk"))
    kr = np.repeat(kr[:, None], 4, 1)
    y = causal(np.concatenate([q, qr], -1), np.concatenate([k, kr], -1), v, 24**-0.5)
    return np.einsum("shd,ohd->so", y, param("o", "D Head Dv", scale=0.2))


MODERN = dict(V=256, D=64, Rq=32, Rk=24, Head=4, Dn=16, Dh=8, Dv=16, E=16, F=32)


@case("modern_decoder", "step", tokens=6, also=["state"], **MODERN)
@case("modern_decoder", "cached", tokens=19, passes=[7, 1, 10, 1], **MODERN)
def m02(c):
    moved = []
    h = c.param("table", "V D", scale=1.0)[c.ids("ids", 256)]
    for l in range(3):
        h = h + latent_attention(c, c.rms(h, "layers[l].norm1.w", "D", 1e-6, l), l)
        x = c.rms(h, "layers[l].norm2.w", "D", 1e-6, l)
        if l == 0:
            h = h + swiglu(c, "layers[l].ffn", l, F=128)(x)
            continue
        s = sigmoid(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T)
        bias = c.param("layers[l].ffn.gate.bias", "E", layer=l, scale=0.1)
        bias = c.states.get(l, bias)
        i, w = group_limited(c, s, bias, 4, 4, 2, 2.5)
        load = np.bincount(i.ravel(), minlength=16)
        moved.append((bias.astype(np.float32) + np.float32(0.001) * np.sign(load.mean() - load).astype(np.float32)).astype(float))
        experts = [swiglu(c, "layers[l].ffn.experts[e]", l, e) for e in range(16)]
        h = h + c.combine(x, i, w, lambda e, x: experts[e](x)) + swiglu(c, "layers[l].ffn.always", l)(x)
    c.output("logits", c.rms(h, "norm.w", "D", 1e-6) @ c.param("head", "V D").T)
    if c.also:
        c.output("layers.ffn.gate.bias", np.array(moved))
    return dict(zip((1, 2), moved))


made("modern_decoder-step").after_ten = ten_steps(made("modern_decoder-step"), m02)


# M03


def attention(c, at, axes, layer, x, source=None, look=seen):
    source = x if source is None else source
    q, k, v = (
        np.einsum("nd,hed->nhe", row, c.param(f"{at}.{n}", "Head Dh D", layer=layer)) + c.param(f"{at}.{n}_bias", "Head Dh", layer=layer, scale=0.2)
        for n, row in (("q", x), ("k", source), ("v", source))
    )
    o = c.param(at + ".o", "D Head Dh", layer=layer, scale=0.2)
    return np.einsum("nhe,dhe->nd", look(q, k, v), o) + c.param(at + ".o_bias", "D", layer=layer, scale=0.2)


def sinusoid(count, width):
    speed = 1e4 ** (-np.arange(width // 2) / (width // 2 - 1))
    angle = np.arange(count)[:, None] * speed
    return np.concatenate([np.sin(angle), np.cos(angle)], -1)


@case("translation", "cached", tokens=15, passes=[9, 1, 1, 4], V=90, D=64, Head=4, Dh=16, E=8, F=96)
def m03(c):
    source = c.given("source", (np.arange(12) * 37 + 11) % 90)
    ids = c.ids("ids", 90)
    table = c.param("table", "V D", scale=0.2)

    def feed(stack, l, x, room):
        path = f"layers[{stack}].ffn"
        if l % 2 == 0:
            return mlp(c, path, relu, l)(x)
        w, i = c.top_k(softmax(x @ c.param(path + ".gate.W", "E D", layer=l).T), 2)
        w = normalise(w)
        keep = places(i, 8) < room
        if room < 100:
            assert 0 < (~keep).sum() < 16, f"{(~keep).sum()} of 24 find no room"
        experts = [mlp(c, path + ".experts[e]", relu, l, e) for e in range(8)]
        return c.combine(x, np.where(keep, i, -1), np.where(keep, w, 0.0), lambda e, x: experts[e](x))

    norm = lambda x, path, l=0: c.layer_norm(x, path, "D", 1e-5, l)
    h = table[source] * 8 + sinusoid(12, 64)
    for l in range(2):
        at = "layers[encoder]."
        h = h + attention(c, at + "attn", "Word", l, norm(h, at + "norm1", l))
        h = h + feed("encoder", l, norm(h, at + "norm2", l), room=3)
    memory = norm(h, "source_norm")
    h = table[ids] * 8 + sinusoid(c.tokens, 64)
    look = lambda q, k, v: causal(q, k, v, 16**-0.5)
    for l in range(2):
        at = "layers[decoder]."
        h = h + attention(c, at + "attn", "S", l, norm(h, at + "norm1", l), look=look)
        h = h + attention(c, at + "cross", "S", l, norm(h, at + "norm2", l), memory)
        h = h + feed("decoder", l, norm(h, at + "norm3", l), room=1000)
    c.output("logits", norm(h, "norm") @ table.T)


# After the first four of its tokens.
made("translation-cached").goes_on = beam(made("translation-cached"), m03, start=4, width=4, count=12)


# M04


def vision(c, room):
    image = c.input("image", "C Y X")
    patches = image.reshape(3, 8, 4, 8, 4).transpose(1, 3, 0, 2, 4).reshape(64, 48)
    h = patches @ c.param("embed.w", "D Pixel").T + c.param("embed.bias", "D", scale=0.2)
    h = np.concatenate([c.param("embed.token", "D", scale=1.0)[None], h]) + c.param("embed.position", "Patch D", scale=0.5)
    for l in range(6):
        x = c.layer_norm(h, "layers[l].norm1", "D", 1e-6, l)
        q, k, v = (np.einsum("nd,hed->nhe", x, c.param(f"layers[l].attn.{n}", "Head Dh D", layer=l)) for n in "qkv")
        h = h + np.einsum("nhe,dhe->nd", seen(q, k, v), c.param("layers[l].attn.o", "D Head Dh", layer=l, scale=0.2))
        x = c.layer_norm(h, "layers[l].norm2", "D", 1e-6, l)
        if l not in (3, 5):
            h = h + mlp(c, "layers[l].ffn", gelu, l)(x)
            continue
        p = softmax(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T)
        w, i = c.top_k(p, 2)
        # The surest come first.
        kept = lambda sure: places(i, 4, np.argsort(-sure, kind="stable")) < math.ceil(room * 2 * 65 / 4)
        keep = kept(p.max(1))
        # Who finds room must not depend on rounding.
        shaken = [p.max(1) * (1 + 2e-5 * noise(f"shaken {trial}", [65])) for trial in range(20)]
        assert all((kept(sure) == keep).all() for sure in shaken), f"{c.name}: near a tie"
        assert keep.all() if room >= 4 else 20 < (~keep).sum() < 80
        experts = [mlp(c, "layers[l].ffn.experts[e]", gelu, l, e) for e in range(4)]
        h = h + c.combine(x, np.where(keep, i, -1), np.where(keep, w, 0.0), lambda e, x: experts[e](x))
    c.output("scores", c.layer_norm(h, "norm", "D", 1e-6)[0] @ c.param("head", "Classes D").T)


IMAGE = dict(C=3, Y=32, X=32, Pixel=48, Patch=65, D=64, Head=4, Dh=16, E=4, F=256, Classes=10)


@case("vision", "half-the-room", tokens=1, **IMAGE)
def m04(c):
    vision(c, 0.5)


@case("vision", "all-find-room", tokens=1, settings={"room": 4.0}, **IMAGE)
def m04_roomy(c):
    vision(c, 4.0)


# M05


def window_attention(c, x, at, shift):
    """Swin's, on a grid of 8 by 8 in windows of 4."""
    rolled = np.roll(x, (-shift, -shift), (0, 1))
    stripe = np.select([np.arange(8) < 4, np.arange(8) < 8 - shift], [0, 1], 2)
    region = 3 * stripe[:, None] + stripe
    cut = lambda a: a.reshape(2, 4, 2, 4, *a.shape[2:]).swapaxes(1, 2).reshape(4, 16, *a.shape[2:])
    qkv = np.einsum("wpd,thed->twphe", cut(rolled), c.param(at + ".qkv", "Three Head Dh D"))
    q, k, v = qkv + c.param(at + ".qkv_bias", "Three Head Dh", scale=0.2)[:, None, None]
    y, x_ = np.divmod(np.arange(16), 4)
    apart = (y[:, None] - y + 3) * 7 + (x_[:, None] - x_ + 3)
    scores = np.einsum("wphe,wohe->whpo", q, k) / 4 + c.param(at + ".offset", "Offset Head", scale=0.5)[apart].transpose(2, 0, 1)
    if shift:
        near = cut(region)[:, :, None] == cut(region)[:, None]
        scores = scores + np.where(near, 0.0, -100.0)[:, None]
    y = np.einsum("whpo,wohe->wphe", softmax(scores), v)
    y = np.einsum("wphe,dhe->wpd", y, c.param(at + ".out_proj", "D Head Dh")) + c.param(at + ".out_bias", "D", scale=0.2)
    whole = y.reshape(2, 2, 4, 4, -1).swapaxes(1, 2).reshape(8, 8, -1)
    return np.roll(whole, (shift, shift), (0, 1))


@case("grid", "windows", tokens=1, Y=8, X=8, D=32, Head=2, Dh=16, Three=3, Offset=49, E=4, F=64, R=16, One=1)
def m05(c):
    h = c.input("x", "Y X D")
    norm = lambda x, path: c.layer_norm(x, path, "D", 1e-5)
    h = h + window_attention(c, norm(h, "first.norm"), "first.attn", 0)
    h = h + mlp(c, "dense", gelu)(norm(h, "norm1"))
    h = h + window_attention(c, norm(h, "second.norm"), "second.attn", 2)
    x = norm(h, "norm2").reshape(64, 32)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    at = "sparse.gate."
    scale = np.exp(np.minimum(c.param(at + "log_scale", "One", scale=0.5, offset=1.5), np.log(100)))
    p = softmax(unit(x @ c.param(at + "project", "R D").T) @ unit(c.param(at + "centre", "E R")).T * scale)
    w, i = c.top_k(p, 1)
    keep = places(i, 4) < math.ceil(1.25 * 64 / 4)
    assert 0 < (~keep).sum() < 30
    experts = [mlp(c, "sparse.experts[e]", gelu, 0, e) for e in range(4)]
    y = c.combine(x, np.where(keep, i, -1), np.where(keep, w, 0.0), lambda e, x: experts[e](x))
    c.output("y", h + y.reshape(8, 8, 32))


# M06


def about_a_pair(c):
    """The row of a person, an item and a place."""
    rows = [c.input("dense", "S Dense")]
    for name, count in (("user", 30), ("item", 40), ("place", 7)):
        axis = name.capitalize() + "s"
        rows.append(c.param(name + "s", axis + " R", scale=1.0, **{axis: count})[c.ids(name, count)])
    return np.concatenate(rows, -1)


def relu_layers(c, path, e, width, F, G=16):
    at = dict(expert=e, D=width, F=F, G=G)
    up, up_bias = c.param(path + ".up", "F D", **at), c.param(path + ".up_bias", "F", scale=0.3, **at)
    down, down_bias = c.param(path + ".down", "G F", **at), c.param(path + ".down_bias", "G", scale=0.3, **at)
    return lambda x: relu(relu(x @ up.T + up_bias) @ down.T + down_bias)


def answers(c, rows):
    for number, (name, row) in enumerate(zip(("likes", "buys"), rows), 1):
        y = relu_layers(c, f"tower{number}", 0, 16, 16, 8)(row)
        b = c.param(f"head{number}.b", "", scale=0.2)
        c.output(name, sigmoid(y @ c.param(f"head{number}.w", "G", scale=1.0, G=8) + b))


@case("multi_gate", "rows", tokens=13, passes=[6, 7], Dense=20, R=8, D=44, E=4)
def m06_multi_gate(c):
    x = about_a_pair(c)
    y = np.stack([relu_layers(c, "pool.experts[e]", e, 44, 32)(x) for e in range(4)], 1)
    p1, p2 = (softmax(x @ c.param(f"{name}.W", "E D").T) for name in ("first", "second"))
    # Its experts are evaluated for the first route only; the second weighs the same results.
    c.route(np.tile(np.arange(4), (c.tokens, 1)), p1)
    answers(c, [np.einsum("se,seg->sg", p, y) for p in (p1, p2)])


@case("layered_extraction", "rows", tokens=13, passes=[6, 7], Dense=20, R=8, D=44)
def m06_layered_extraction(c):
    x = about_a_pair(c)
    some = lambda name, row, count: softmax(row @ c.param(name + ".W", "Some D", Some=count, D=row.shape[-1]).T)
    listed = lambda first, count: np.tile(np.arange(first, first + count), (c.tokens, 1))
    mixed = lambda p, ys: np.einsum("se,seg->sg", p, np.stack(ys, 1))
    y = [relu_layers(c, "pool1.experts[e]", e, 44, 32)(x) for e in range(6)]
    p = some("common1", x, 6)
    c.route(listed(0, 6), p)
    first = mixed(some("first1", x, 4), y[0:4])
    second = mixed(some("second1", x, 4), y[2:6])
    common = mixed(p, y)
    experts = [relu_layers(c, "pool2.experts[e]", e, 16, 16) for e in range(6)]
    p1, p2 = some("first2", first, 4), some("second2", second, 4)
    c.route(listed(0, 4), p1)
    c.route(listed(2, 4), p2)
    reads = [first, first, common, common, second, second]
    y = [expert(row) for expert, row in zip(experts, reads)]
    answers(c, [mixed(p1, y[0:4]), mixed(p2, y[2:6])])


# M07


@case("contrast", "pair", tokens=1, also=["aux", "trace"], P=24, V=60, D=64, Patch=16, Token=28, Head=4, Dh=16, E=8, F=96, C=32)
def m07(c):
    words = c.given("text", (np.arange(12) * 17 + 5) % 60)
    h = np.concatenate([c.input("image", "Patch P") @ c.param("project", "D P").T, c.param("table", "V D", scale=1.0)[words]])
    h = h + c.param("position", "Token D", scale=0.5)
    kind = np.arange(28) < 16
    losses, kinds, entropy = [], [], lambda p: -(p * np.log(p)).sum(-1)
    uneven = lambda x: (x.std() / x.mean()) ** 2
    for l in range(4):
        x = c.layer_norm(h, "layers[l].norm1", "D", 1e-6, l)
        q, k, v = (np.einsum("nd,hed->nhe", x, c.param(f"layers[l].attn.{n}", "Head Dh D", layer=l)) for n in "qkv")
        y = np.concatenate([seen(q[of], k[of], v[of]) for of in (kind, ~kind)])
        h = h + np.einsum("nhe,dhe->nd", y, c.param("layers[l].attn.o", "D Head Dh", layer=l, scale=0.2))
        x = c.layer_norm(h, "layers[l].norm2", "D", 1e-6, l)
        if l % 2 == 0:
            h = h + mlp(c, "layers[l].ffn", gelu, l)(x)
            continue
        logits = x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T
        p = softmax(logits)
        w, i = c.top_k(p, 1)
        above = 0.5 * (1 + erf((logits - logits.max(-1, keepdims=True)) * 8 / math.sqrt(2)))
        z = np.square(np.log(np.exp(logits).sum(-1))).mean()
        local = [entropy(p[of]).mean() for of in (kind, ~kind)]
        whole = [-entropy(p[of].mean(0)) for of in (kind, ~kind)]
        losses.append([uneven(p.sum(0)), uneven(above.sum(0)), z, *local, *whole])
        kinds.append([np.bincount(i[of, 0], minlength=8) for of in (kind, ~kind)])
        experts = [mlp(c, "layers[l].ffn.experts[e]", gelu, l, e) for e in range(8)]
        h = h + c.combine(x, i, w, lambda e, x: experts[e](x))
    y = c.layer_norm(h, "norm", "D", 1e-6)
    for name, of in (("image", kind), ("text", ~kind)):
        vector = y[of].mean(0) @ c.param(f"of_{name}", "C D").T
        c.output(f"{name}_vector", vector / np.linalg.norm(vector))
    losses = np.array(losses).T
    for name, loss in zip("importance load z local_image local_text global_image global_text".split(), losses):
        c.output(f"layers.ffn.gate.{name}", loss)
    for name, counts in zip(("images", "texts"), np.array(kinds).swapaxes(0, 1)):
        c.output(f"layers.ffn.gate.{name}", counts.astype(float))
    c.output("aux", np.array([0.005, 0.005, 0.001, 0.04, 0.04, 0.04, 0.04]) @ losses.sum(1)[:, None])


# M08


def multimodal(c, ids, patches):
    t = np.arange(c.tokens)
    at = "project."
    up, up_bias = c.param(at + "up", "F I", F=48), c.param(at + "up_bias", "F", F=48, scale=0.2)
    down, down_bias = c.param(at + "down", "D F", F=48), c.param(at + "down_bias", "D", scale=0.2)
    h = c.param("table", "V D", scale=1.0)[np.maximum(ids, 0)]
    seen = ids < 0
    h[seen] = gelu(patches[seen] @ up.T + up_bias) @ down.T + down_bias
    for l in range(4):
        at = "layers[l].attn"
        y = c.rms(h, "layers[l].norm1.w", "D", 1e-6, l)
        q, k, v = (np.einsum("sd,hed->she", y, c.param(f"{at}.{n}", "Head Dh D", layer=l)) for n in "qkv")
        y = causal(rope_half(q, 1e4, t), rope_half(k, 1e4, t), v, 16**-0.5)
        h = h + np.einsum("shd,ohd->so", y, c.param(at + ".o", "D Head Dh", layer=l, scale=0.25))
        x = c.rms(h, "layers[l].norm2.w", "D", 1e-6, l)
        if l % 2 == 0:
            h = h + swiglu(c, "layers[l].ffn", l, F=64)(x)
            continue
        w, i = c.top_k(softmax(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T), 2)
        experts = [swiglu(c, "layers[l].ffn.experts[e]", l, e) for e in range(4)]
        h = h + c.combine(x, i, normalise(w), lambda e, x: experts[e](x))
    c.output("logits", c.rms(h, "norm.w", "D", 1e-6) @ c.param("head", "V D").T)


SEEING = dict(V=96, D=48, I=20, Head=3, Dh=16, E=4, F=40)


@case("multimodal", "image-and-text", tokens=17, passes=[13, 1, 3], **SEEING)
def m08(c):
    ids = np.concatenate([[5], np.full(9, -1), (np.arange(7) * 31 + 4) % 96])
    multimodal(c, c.given("ids", ids), c.input("patches", "S I"))


@case("multimodal", "text-alone", tokens=6, **SEEING)
def m08_text(c):
    """What stands beside words in `patches` changes nothing: the reference sees none."""
    ids = c.ids("ids", 96)
    c.input("patches", "S I", scale=1e3)
    multimodal(c, ids, np.full((c.tokens, 20), np.nan))


# M09


@case("time_series", "sines", tokens=24, passes=[22, 1, 1], D=32, Head=4, Dh=8, E=8, F=24, One=1, A=1, B=8, C=32, N=64)
def m09(c):
    t = np.arange(c.tokens)
    x = c.given("series", (np.sin(0.5 * t) + 0.6 * np.sin(1.7 * t + 0.3)).astype(np.float32)).astype(float)[:, None]
    h = silu(x * c.param("embed.gate", "D", scale=2.0)) * (x * c.param("embed.value", "D", scale=2.0))
    for l in range(2):
        at = "layers[l].attn"
        y = c.rms(h, "layers[l].norm1.w", "D", 1e-6, l)
        q, k, v = (
            np.einsum("sd,hed->she", y, c.param(f"{at}.{n}", "Head Dh D", layer=l)) + c.param(f"{at}.{n}_bias", "Head Dh", layer=l, scale=0.2)
            for n in "qkv"
        )
        y = causal(rope_half(q, 1e4, t), rope_half(k, 1e4, t), v, 8**-0.5)
        h = h + np.einsum("shd,ohd->so", y, c.param(at + ".o", "D Head Dh", layer=l, scale=0.3))
        x = c.rms(h, "layers[l].norm2.w", "D", 1e-6, l)
        w, i = c.top_k(softmax(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T), 2)
        experts = [swiglu(c, "layers[l].ffn.experts[e]", l, e) for e in range(8)]
        opened = sigmoid(x @ c.param("layers[l].ffn.always.open", "One D", layer=l).T)
        shared = swiglu(c, "layers[l].ffn.always.expert", l)(x)
        h = h + c.combine(x, i, w, lambda e, x: experts[e](x)) + opened * shared
    y = c.rms(h, "norm.w", "D", 1e-6)
    for axis, n in zip("ABCN", (1, 8, 32, 64)):
        c.output(f"next{n}", y @ c.param(f"head{n}", axis + " D").T)


# M11


@case("routed_attention", "cached", tokens=18, passes=[11, 1, 1, 5], V=96, D=48, Head=2, Dh=16, E=8, F=40)
def m11(c):
    t = np.arange(c.tokens)
    table = c.param("table", "V D", scale=0.3)
    h = table[c.ids("ids", 96)]

    def chosen(x, path, l):
        v, i = c.top_k(x @ c.param(path, "E D", layer=l).T, 2)
        return i, softmax(v)

    for l in range(2):
        at = "layers[l].attn"
        x = c.rms(h, "layers[l].norm1.w", "D", 1e-6, l)
        i, w = chosen(x, at + ".choose.W", l)
        query = np.stack([c.param(at + ".query.experts[e].W", "Head Dh D", layer=l, expert=e) for e in range(8)])
        output = np.stack([c.param(at + ".output.experts[e].W", "D Head Dh", layer=l, expert=e, scale=0.3) for e in range(8)])
        k = rope_half(np.einsum("sd,hed->she", x, c.param(at + ".key", "Head Dh D", layer=l)), 1e4, t)
        v = np.einsum("sd,hed->she", x, c.param(at + ".value", "Head Dh D", layer=l))
        c.route(i, w)
        y = 0
        for choice in range(2):
            q = rope_half(np.einsum("sd,shed->she", x, query[i[:, choice]]), 1e4, t)
            seen = causal(q, k, v, 16**-0.5)
            y = y + w[:, choice, None] * np.einsum("she,sdhe->sd", seen, output[i[:, choice]])
        h = h + y
        x = c.rms(h, "layers[l].norm2.w", "D", 1e-6, l)
        i, w = chosen(x, "layers[l].ffn.gate.W", l)
        experts = [swiglu(c, "layers[l].ffn.experts[e]", l, e) for e in range(8)]
        h = h + c.combine(x, i, w, lambda e, x: experts[e](x))
    c.output("logits", c.rms(h, "norm.w", "D", 1e-6) @ table.T)


# M10


def mixlora(c, adapt):
    def ffn(c, x, l):
        w, i = c.top_k(softmax(x @ c.param("layers[l].ffn.gate.W", "E D", layer=l).T), 2)
        base = {n: c.param(f"layers[l].{n}", a, layer=l) for n, a in (("gate", "F D"), ("up", "F D"), ("down", "D F"))}

        def expert(e, x):
            def low(n, wide):
                a = c.param(f"layers[l].ffn.experts[e].{n}_a", "Rank " + wide[1], layer=l, expert=e)
                b = c.param(f"layers[l].ffn.experts[e].{n}_b", wide[0] + " Rank", layer=l, expert=e, scale=adapt)
                return base[n] + 2.0 / 4 * b @ a

            return (silu(x @ low("gate", "FD").T) * (x @ low("up", "FD").T)) @ low("down", "DF").T

        return c.combine(x, i, normalise(w), expert)

    byte_decoder(c, ffn)


@case("adapters", "adapted", tokens=12, passes=[9, 1, 2], E=4, F=96, Rank=4, **BYTES)
def m10(c):
    mixlora(c, 0.8)


@case("adapters", "untrained", tokens=5, E=4, F=96, Rank=4, **BYTES)
def m10_untrained(c):
    """With B zero, as it starts, nothing has changed: the frozen decoder with its one dense layer."""
    mixlora(c, 0.0)
    adapted = c.outputs.pop()["values"]
    frozen = Case("", c.name, c.tokens, **c.sizes)

    def dense(c, x, l):
        gate, up, down = (c.param(f"layers[l].{n}", a, layer=l) for n, a in (("gate", "F D"), ("up", "F D"), ("down", "D F")))
        return (silu(x @ gate.T) * (x @ up.T)) @ down.T

    byte_decoder(frozen, dense)
    c.outputs = frozen.outputs
    assert np.allclose(adapted, c.outputs[0]["values"], atol=1e-7)


if __name__ == "__main__":
    write(CASES)
