"""python3 -m unittest discover, with the compiler's path in $MOEC and NumPy there."""

import os
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np

import moec

REPOSITORY = Path(__file__).resolve().parents[4]
BARD = REPOSITORY / "examples/bard"


class Bard(unittest.TestCase):
    """A trained model from bytes to logits."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        spec = Path(os.environ["BARD"])
        cls.build = moec.compile(spec, weights=BARD, output=Path(cls.folder.name) / "build")
        cls.model = moec.load(cls.build, threads=2)

    @classmethod
    def tearDownClass(cls):
        del cls.model
        cls.folder.cleanup()

    def greedy(self, prompt: bytes, count: int) -> bytes:
        said = bytearray()
        with self.model.session(len(prompt) + count) as session:
            logits = session.step(np.frombuffer(prompt, np.uint8))
            for _ in range(count):
                said.append(int(logits.argmax()))
                logits = session.step([said[-1]])
        return bytes(said)

    def test_says_verse(self):
        said = self.greedy(b"JULIET.", 24)
        self.assertTrue(said.isascii() and len(set(said)) > 4, said)
        self.assertEqual(said, self.greedy(b"JULIET.", 24))

    def test_whole_equals_step_by_step(self):
        ids = np.frombuffer(b"But soft, what light", np.uint8).astype(np.int64)
        whole = self.model.run(ids=ids)["logits"]
        with self.model.session(len(ids)) as session:
            parts = [session.run(ids=ids[at : at + 1])["logits"] for at in range(len(ids))]
            self.assertEqual(session.position, len(ids))
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-4)

    def test_threads_do_not_meet(self):
        alone = self.greedy(b"ROMEO.", 16)
        said = [b""] * 4

        def speak(at):
            said[at] = self.greedy(b"ROMEO.", 16)

        threads = [threading.Thread(target=speak, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(said, [alone] * 4)

    def test_sessions_step_together_and_share_what_they_begin_with(self):
        prompts = [b"JULIET.", b"But soft, what light through yonder window", b"K"]
        sessions = [self.model.session(64) for _ in prompts]
        logits = self.model.step_together([(one, np.frombuffer(text, np.uint8)) for one, text in zip(sessions, prompts)])
        said = [bytearray() for _ in prompts]
        for _ in range(16):
            for text, row in zip(said, logits):
                text.append(int(row.argmax()))
            logits = self.model.step_together([(one, [text[-1]]) for one, text in zip(sessions, said)])
        self.assertEqual([bytes(text) for text in said], [self.greedy(prompt, 16) for prompt in prompts])
        self.assertEqual([one.position for one in sessions], [len(prompt) + 16 for prompt in prompts])

        first, before = sessions[1], self.model.cache_bytes
        fork, now = first.fork(10), first.fork()
        self.assertEqual((fork.position, now.position, self.model.cache_bytes), (10, first.position, before))
        rest = np.frombuffer(prompts[1][10:], np.uint8)
        with self.model.session(64) as alone:
            alone.step(np.frombuffer(prompts[1][:10], np.uint8))
            np.testing.assert_array_equal(fork.step(rest), alone.step(rest))

        self.refuses(["turn 1"], lambda: self.model.step_together([(fork, [1]), (now, [])]))
        self.refuses(["-1"], lambda: first.fork(-1))
        self.refuses(["99"], lambda: first.fork(99))
        self.assertEqual(fork.position, len(prompts[1]))

    def test_a_budget_for_caches(self):
        model = moec.load(self.build, threads=1, cache_mib=1)
        sessions = []
        with self.assertRaises(moec.CacheFullError):
            for _ in range(1000):
                sessions.append(model.session(64))
                sessions[-1].step([1])
        self.assertTrue(0 < model.cache_bytes <= 1 << 20)
        stuck = sessions.pop()
        sessions.pop().close()
        stuck.step([1])

    def refuses(self, words, call):
        with self.assertRaises(moec.MoecError) as caught:
            call()
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_bad_input_is_explained(self):
        model = self.model
        self.refuses(["words", "ids: i32"], lambda: model.run(words=[1]))
        self.refuses(["ids", "missing"], lambda: model.run())
        self.refuses(["float64"], lambda: model.run(ids=[0.5]))
        self.refuses(["1 axes, not 2"], lambda: model.run(ids=[[1, 2]]))
        self.refuses(["i32 cannot"], lambda: model.run(ids=[2**40]))
        self.refuses(["vocab", "logits"], lambda: model.run(["vocab"], ids=[1]))
        self.refuses(["100000"], lambda: model.run(ids=[100000]))
        self.refuses(["build.json"], lambda: moec.load("/nowhere"))
        (Path(self.folder.name) / "build.json").write_text('{"version": 7, "moec": "9.1"}')
        self.refuses(["version 7", "moec 9.1", "reads version 1"], lambda: moec.load(self.folder.name))
        self.refuses(["level"], lambda: moec.load(self.build, level="best of all"))
        self.refuses(["at least one"], lambda: model.session(0))
        session = model.session(2)
        self.refuses(["3"], lambda: session.step([1, 2, 3]))
        session.close()
        session.close()
        self.refuses(["closed"], lambda: session.step([1]))

    def test_what_the_compiler_says_comes_through(self):
        spec = Path(self.folder.name) / "broken.moe"
        spec.write_text("model broken(x: f32[S, D]) { out y = relu(z) }\n")
        self.refuses(["broken.moe", "`z`"], lambda: moec.compile(spec))


if __name__ == "__main__":
    unittest.main()
