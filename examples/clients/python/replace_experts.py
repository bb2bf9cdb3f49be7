"""A transformers model whose experts are compiled: the same text, the times side by side.

    python3 replace_experts.py [--hidden 512] [--layers 4] [--tokens 128]       (random weights; needs torch and transformers)
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

import moec.torch

SPEC = Path(__file__).parent / "olmoe_block.moe"


def with_compiled_experts(model: OlmoeForCausalLM, threads: int = 0) -> OlmoeForCausalLM:
    """A copy of the model in which every block of experts is compiled."""
    config, compiled = model.config, copy.deepcopy(model)
    settings = {"D": config.hidden_size, "E": config.num_experts, "K": config.num_experts_per_tok,
                "F": config.intermediate_size, "renormalise": config.norm_topk_prob}
    for layer in compiled.model.layers:
        layer.mlp = moec.torch.module(layer.mlp, SPEC, settings=settings, threads=threads)
    return compiled


def random_model(hidden: int, inner: int, layers: int, experts: int, seed: int = 0) -> OlmoeForCausalLM:
    torch.manual_seed(seed)
    config = OlmoeConfig(hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=4,
                         num_key_value_heads=4, num_experts=experts, num_experts_per_tok=min(8, experts // 2), vocab_size=512,
                         initializer_range=0.2, bos_token_id=0, eos_token_id=None, pad_token_id=None)
    return OlmoeForCausalLM(config).eval()


@torch.inference_mode()
def timed(model: OlmoeForCausalLM, ids: torch.Tensor, new: int) -> tuple[list[int], float]:
    started = time.perf_counter()
    said = model.generate(ids, max_new_tokens=new, do_sample=False)
    return said[0, ids.shape[1] :].tolist(), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = random_model(arguments.hidden, arguments.hidden // 2, arguments.layers, 32)
    compiled = with_compiled_experts(model, torch.get_num_threads())
    ids = torch.randint(0, 512, (1, arguments.tokens))
    times = {"transformers": [], "compiled experts": []}
    for _ in range(arguments.rounds):
        texts = []
        for name, one in (("transformers", model), ("compiled experts", compiled)):
            text, seconds = timed(one, ids, 32)
            times[name].append(seconds)
            texts.append(text)
        print("equal text" if texts[0] == texts[1] else f"texts differ:\n  {texts[0]}\n  {texts[1]}")
    best = {name: min(seconds) for name, seconds in times.items()}
    for name, seconds in best.items():
        print(f"{name:<18}{seconds:8.3f} s")
    print(f"ratio             {best['transformers'] / best['compiled experts']:8.2f}")


if __name__ == "__main__":
    main()
