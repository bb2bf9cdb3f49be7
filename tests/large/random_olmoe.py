"""Writes a checkpoint with the sizes of OLMoE-1B-7B and random weights: bf16, 13.8 GB in three files under an index.

    python3 tests/large/random_olmoe.py FOLDER [--layers N] [--width N] [--hidden N] [--experts N] [--heads N] [--vocabulary N]

It is for measuring what a large model needs while it is packed, opened and run; tests/large/README.md says how. One tensor
at a time is in memory, and the same call writes the same bytes. Needs numpy.
"""

import argparse
import json
import os
import struct

import numpy as np

CHOSEN = 8
FILE_BYTES = 5_000_000_000


def tensors(sizes):
    """Names and shapes in the order in which they are written."""
    width, hidden = sizes.width, sizes.hidden
    yield "model.embed_tokens.weight", [sizes.vocabulary, width]
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            yield f"{at}{norm}.weight", [width]
        for projection in "qkvo":
            yield f"{at}self_attn.{projection}_proj.weight", [width, width]
        yield f"{at}mlp.gate.weight", [sizes.experts, width]
        for expert in range(sizes.experts):
            yield f"{at}mlp.experts.{expert}.gate_proj.weight", [hidden, width]
            yield f"{at}mlp.experts.{expert}.up_proj.weight", [hidden, width]
            yield f"{at}mlp.experts.{expert}.down_proj.weight", [width, hidden]
    yield "model.norm.weight", [width]
    yield "lm_head.weight", [sizes.vocabulary, width]


def size(shape):
    return 2 * int(np.prod(shape))


def values(shape, random):
    """bf16 by their bits: norms are 1, all else has a magnitude between 2^-7 and 2^-6."""
    if len(shape) == 1:
        return np.full(shape, 0x3F80, np.uint16)
    bits = random.integers(0, 1 << 16, shape, np.uint16)
    return bits & np.uint16(0x807F) | np.uint16(0x3C00)


def write(path, group, random):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in group:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size(shape)]}
        at += size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in group:
            file.write(values(shape, random).data)


def main(sizes):
    folder = sizes.folder
    os.makedirs(folder, exist_ok=True)
    groups, room = [], 0
    for name, shape in tensors(sizes):
        if size(shape) > room:
            groups.append([])
            room = FILE_BYTES
        room -= size(shape)
        groups[-1].append((name, shape))
    random, places = np.random.default_rng(1), {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        write(os.path.join(folder, file), group, random)
        places.update((name, file) for name, _ in group)
    total = sum(size(shape) for group in groups for _, shape in group)
    config = {
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "torch_dtype": "bfloat16",
        "vocab_size": sizes.vocabulary, "hidden_size": sizes.width, "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.heads, "num_experts": sizes.experts,
        "num_experts_per_tok": CHOSEN, "intermediate_size": sizes.hidden,
        "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "norm_topk_prob": False,
        "tie_word_embeddings": False, "max_position_embeddings": 4096,
    }
    for name, content in (
        ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places}),
        ("config.json", config),
    ):
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file, indent=1)
    print(f"{folder}: {total} bytes of tensors in {len(groups)} files")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    of_olmoe = {"layers": 16, "width": 2048, "hidden": 1024, "experts": 64, "heads": 16, "vocabulary": 50304}
    for name, number in of_olmoe.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    main(parser.parse_args())
