"""The mixers of make_parts.py by the modules of `transformers`, with the same weights: a second opinion on the reference.

Importing this fails where `torch` or `transformers` is not there; make_parts.py then goes without.
"""

import logging

import torch
from transformers import Mamba2Config, MambaConfig, MiniMaxConfig, Qwen3NextConfig
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

logging.disable(logging.WARNING)


def run(module, c, weights, **more):
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in weights.items()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors.pop(name).reshape(parameter.shape))
        assert not tensors, f"unused: {list(tensors)}"
        y = module(torch.tensor(c.x, dtype=torch.float32)[None], **more)
    return (y[0] if isinstance(y, tuple) else y)[0].double().numpy()


def mamba(c, I, N, R, K):
    config = MambaConfig(hidden_size=c.D, state_size=N, conv_kernel=K, time_step_rank=R, num_hidden_layers=1, use_bias=False)
    config.intermediate_size = I
    w = c.weights
    names = {"in_proj.weight": "w_in", "conv1d.weight": "conv", "conv1d.bias": "bias", "x_proj.weight": "x_proj", "A_log": "A_log"}
    names |= {"dt_proj.weight": "dt_proj", "dt_proj.bias": "dt_bias", "D": "skip", "out_proj.weight": "out"}
    return run(MambaMixer(config, 0), c, {theirs: w[ours] for theirs, ours in names.items()})


def mamba2(c, heads, P, N, G, K):
    expand = heads * P // c.D
    config = Mamba2Config(
        hidden_size=c.D, num_heads=heads, head_dim=P, state_size=N, n_groups=G, conv_kernel=K, expand=expand,
        num_hidden_layers=1, use_bias=False, chunk_size=4, layer_norm_epsilon=1e-5,
    )  # fmt: skip
    w = c.weights
    names = {"in_proj.weight": "w_in", "conv1d.weight": "conv", "conv1d.bias": "bias", "A_log": "A_log", "D": "skip"}
    names |= {"dt_bias": "dt_bias", "norm.weight": "norm", "out_proj.weight": "out"}
    return run(Mamba2Mixer(config, 0), c, {theirs: w[ours] for theirs, ours in names.items()})


def gated_delta(c, heads, reps, Dk, Dv, K):
    config = Qwen3NextConfig(
        hidden_size=c.D, linear_num_key_heads=heads, linear_num_value_heads=heads * reps, linear_key_head_dim=Dk,
        linear_value_head_dim=Dv, linear_conv_kernel_dim=K, num_hidden_layers=1, layer_types=["linear_attention"],
    )  # fmt: skip
    w = c.weights
    names = {"in_proj_qkvz.weight": "qkvz", "in_proj_ba.weight": "ba", "conv1d.weight": "conv", "A_log": "A_log"}
    names |= {"dt_bias": "dt_bias", "norm.weight": "norm", "out_proj.weight": "out"}
    return run(Qwen3NextGatedDeltaNet(config, 0), c, {theirs: w[ours] for theirs, ours in names.items()})


def lightning(c, heads, Dh, layer, depth):
    config = MiniMaxConfig(
        hidden_size=c.D, num_attention_heads=heads, num_key_value_heads=heads, head_dim=Dh, num_hidden_layers=depth,
        block_size=4, layer_types=["linear_attention"] * depth,
    )  # fmt: skip
    w = c.weights
    names = {"qkv_proj.weight": "qkv", "norm.weight": "norm", "output_gate.weight": "gate", "out_proj.weight": "out"}
    module = MiniMaxLightningAttention(config, layer)
    return run(module, c, {theirs: w[ours] for theirs, ours in names.items()}, position_embeddings=None, attention_mask=None)
