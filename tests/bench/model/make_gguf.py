#!/usr/bin/env python3
"""make_gguf.py OUT.gguf {BF16,Q8_0,Q4_0} LAYERS: a model of OLMoE-1B-7B's shape with random weights, for llama.cpp.

Tensors of one shape hold the same numbers: the file has each of them, this process only one, and quantises it once.
"""
import sys

import gguf
import numpy as np

WIDTH, HIDDEN, EXPERTS, CHOSEN, HEADS, VOCABULARY = 2048, 1024, 64, 8, 16, 50304


def main(path, kind, layers):
    kind, made = gguf.GGMLQuantizationType[kind], {}
    pool = np.random.default_rng(1).standard_normal(1 << 22, dtype=np.float32) * 0.02

    def drawn(*shape):
        if shape not in made:
            made[shape] = gguf.quants.quantize(np.resize(pool, shape), kind)
        return made[shape]

    def layer(number):
        for norm in ("attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm"):
            yield norm, np.ones(WIDTH, np.float32), None
        for projection in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield projection, drawn(WIDTH, WIDTH), kind
        # A router of its own for each layer, in f32 as llama.cpp keeps it.
        yield "ffn_gate_inp", np.random.default_rng(number).standard_normal((EXPERTS, WIDTH), dtype=np.float32) * 0.02, None
        yield "ffn_gate_exps", drawn(EXPERTS, HIDDEN, WIDTH), kind
        yield "ffn_up_exps", drawn(EXPERTS, HIDDEN, WIDTH), kind
        yield "ffn_down_exps", drawn(EXPERTS, WIDTH, HIDDEN), kind

    file = gguf.GGUFWriter(path, "olmoe")
    for say, value in {
        file.add_block_count: layers, file.add_context_length: 4096, file.add_embedding_length: WIDTH,
        file.add_feed_forward_length: HIDDEN, file.add_expert_feed_forward_length: HIDDEN, file.add_head_count: HEADS,
        file.add_head_count_kv: HEADS, file.add_layer_norm_rms_eps: 1e-5, file.add_rope_freq_base: 10000.0,
        file.add_expert_count: EXPERTS, file.add_expert_used_count: CHOSEN, file.add_vocab_size: VOCABULARY,
        file.add_tokenizer_model: "no_vocab",
    }.items():
        say(value)
    file.add_tensor("token_embd.weight", drawn(VOCABULARY, WIDTH), raw_dtype=kind)
    file.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    file.add_tensor("output.weight", drawn(VOCABULARY, WIDTH), raw_dtype=kind)
    for number in range(layers):
        for name, values, raw in layer(number):
            file.add_tensor(f"blk.{number}.{name}.weight", values, raw_dtype=raw)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
