"""Against a real model of transformers; skipped where torch or transformers are not there."""

import sys
import unittest
from pathlib import Path

try:
    import torch
    import transformers  # noqa: F401
except ImportError:
    torch = None

REPOSITORY = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(REPOSITORY / "examples/clients/python"))


@unittest.skipIf(torch is None, "torch and transformers are not installed")
class Replaced(unittest.TestCase):
    def test_a_model_with_compiled_experts_says_the_same(self):
        from replace_experts import random_model, timed, with_compiled_experts

        model = random_model(64, 32, 2, 8)
        compiled = with_compiled_experts(model)
        ids = torch.randint(0, 512, (2, 9), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=0, atol=2e-3)
        self.assertEqual(timed(compiled, ids[:1], 12)[0], timed(model, ids[:1], 12)[0])

    def test_what_is_no_layer_is_refused(self):
        import moec.torch

        with self.assertRaises(moec.MoecError):
            moec.torch.module(torch.nn.Linear(4, 4), REPOSITORY / "examples/clients/python/olmoe_block.moe")


if __name__ == "__main__":
    unittest.main()
