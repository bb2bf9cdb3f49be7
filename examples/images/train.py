#!/usr/bin/env python3
"""Trains images.moe on Fashion-MNIST and writes what the demo needs beside this file.

    model.safetensors        the weights, under the names that images.moe binds
    test-images.idx3.gz      the first 1,000 images of the test set, test-labels.idx1.gz their classes (Fashion-MNIST, MIT licence)
    figures.json             the accuracy that this script measures with PyTorch

The model is written here once more in PyTorch, as anybody would who does not know moec. Needs torch, numpy, safetensors, and the
data: `apt-get install dataset-fashion-mnist`, or --data with a folder of the four idx files. About five minutes on one core.
"""

import argparse
import gzip
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
SHOWN = 1000


class Expert(nn.Module):
    """SwiGLU."""

    def __init__(self, width, inner):
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """Each row to the k best of its experts by softmax, weighed by their renormalised probabilities."""

    def __init__(self, width, inner, experts, k):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, inner) for _ in range(experts))
        self.k = k

    def forward(self, h):
        x = self.norm(h)
        p = self.gate(x).softmax(-1)
        w, i = p.topk(self.k, -1)
        w = w / w.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            rows, choice = (i == e).nonzero(as_tuple=True)
            y = y.index_add(0, rows, expert(x[rows]) * w[rows, choice, None])
        # Switch Transformers' balance loss, over all choices: the share of each expert times its mean probability.
        share = F.one_hot(i, len(self.experts)).float().mean((0, 1))
        return h + y, len(self.experts) * (share * p.mean(0)).sum()


class Stem(nn.Module):
    def __init__(self, patch, channels, width):
        super().__init__()
        side = 28 // patch
        self.patch = patch
        self.embed = nn.Parameter(torch.randn(channels, patch, patch) / patch)
        self.embed_bias = nn.Parameter(torch.zeros(channels))
        self.join = nn.Parameter(torch.randn(width, side, side, channels) / (side * channels**0.5))

    def forward(self, x):
        patches = x.unflatten(2, (-1, self.patch)).unflatten(1, (-1, self.patch))  # [N, row, dy, column, dx]
        p = F.gelu(torch.einsum("nrycx,eyx->nrce", patches, self.embed) + self.embed_bias)
        return torch.einsum("nrce,drce->nd", p, self.join)


class Images(nn.Module):
    def __init__(self, patch=4, channels=32, width=128, layers=2, experts=8, k=2, inner=64):
        super().__init__()
        self.see = Stem(patch, channels, width)
        self.layers = nn.ModuleList(Mixture(width, inner, experts, k) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10, bias=False)

    def forward(self, x):
        h, balance = F.dropout(self.see(x), 0.1, self.training), 0.0
        for layer in self.layers:
            h, more = layer(h)
            balance = balance + more
        return self.head(self.norm(h)), balance


def idx(path):
    """The array in an idx file of bytes."""
    with gzip.open(path) as file:
        data = file.read()
    sizes = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def write_idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">i4").tobytes()
    with open(path, "wb") as file:
        file.write(gzip.compress(head + array.tobytes(), mtime=0))


def augmented(x, generator):
    """Half of the images mirrored; all moved by up to two pixels."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None], x.flip(2), x)
    dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
    return F.pad(x, (2, 2, 2, 2))[:, dy : dy + 28, dx : dx + 28]


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    right = sum((model(x[at : at + 500])[0].argmax(-1) == y[at : at + 500]).sum().item() for at in range(0, len(x), 500))
    return right / len(x)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    arguments.add_argument("--epochs", type=int, default=12)
    arguments = arguments.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    load = lambda name: idx(os.path.join(arguments.data, name + ".gz"))
    images, labels = load("t10k-images-idx3-ubyte"), load("t10k-labels-idx1-ubyte")
    tensor = lambda images: torch.from_numpy(images.astype(np.float32) / 255)
    x, y = tensor(load("train-images-idx3-ubyte")), torch.from_numpy(load("train-labels-idx1-ubyte").astype(np.int64))
    held_x, held_y = tensor(images), torch.from_numpy(labels.astype(np.int64))

    model = Images()
    steps = arguments.epochs * (len(x) // 128)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.1)
    for epoch in range(arguments.epochs):
        model.train()
        order, total = torch.randperm(len(x), generator=generator), 0.0
        for at in range(0, len(x) - 127, 128):
            rows = order[at : at + 128]
            scores, balance = model(augmented(x[rows], generator))
            loss = F.cross_entropy(scores, y[rows], label_smoothing=0.05) + 0.01 * balance
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}: loss {total / (len(x) // 128):.4f}, test accuracy {accuracy(model, held_x, held_y):.4f}", flush=True)

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(HERE, "model.safetensors"))
    write_idx(os.path.join(HERE, "test-images.idx3.gz"), images[:SHOWN])
    write_idx(os.path.join(HERE, "test-labels.idx1.gz"), labels[:SHOWN])
    figures = {
        "framework": f"PyTorch {torch.__version__.split('+')[0]}",
        "accuracy_of_all_10000": accuracy(model, held_x, held_y),
        "accuracy_of_first_1000": accuracy(model, held_x[:SHOWN], held_y[:SHOWN]),
    }
    with open(os.path.join(HERE, "figures.json"), "w") as file:
        file.write(json.dumps(figures, indent=2) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
