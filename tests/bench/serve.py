"""What stepping together and sharing beginnings is worth: python3 tests/bench/serve.py BUILD [--threads N] [--rounds R]

BUILD is a folder of `moec build`, from tokens to logits, with weights; $MOEC and PYTHONPATH as docs/guides/python.md has them.
Every way is measured in turn within each round; the tables have the best of each, since other programs may run beside.
"""

import argparse
import time

import moec
import numpy as np

TOGETHER = (1, 2, 4, 8, 16, 32, 64)
STEPS = 24


def prompt_of(model, count, seed):
    return np.random.default_rng(seed).integers(0, model.vocabulary, count, dtype=np.int32)


def seconds_for(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tokens_together(model, sessions):
    """Tokens a second of sessions that step together, and of the same in turn, each by itself."""
    turns = [(session, [at % model.vocabulary]) for at, session in enumerate(sessions)]
    together = seconds_for(lambda: [model.step_together(turns) for _ in range(STEPS)])
    in_turn = seconds_for(lambda: [session.step(ids) for _ in range(STEPS) for session, ids in turns])
    return STEPS * len(turns) / together, STEPS * len(turns) / in_turn


def seconds_of_beginnings(model, shared, own, count):
    """Of `count` prompts with as many tokens in common: computed each by itself, and by forks of one that has them."""
    beginning = prompt_of(model, shared, 0)
    rests = [prompt_of(model, own, 1 + at) for at in range(count)]
    room = shared + own

    def by_themselves():
        for rest in rests:
            with model.session(room) as session:
                session.step(np.concatenate([beginning, rest]))

    def by_forks():
        with model.session(room) as first:
            first.step(beginning)
            for rest in rests:
                with first.fork() as session:
                    session.step(rest)

    return seconds_for(by_themselves), seconds_for(by_forks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = moec.load(arguments.build, threads=arguments.threads)
    print(f"{model}, {model.threads} threads, best of {arguments.rounds} rounds\n")

    room = 16 + 2 * STEPS * arguments.rounds
    best = {count: [0.0, 0.0] for count in TOGETHER}
    sets = {}
    for count in TOGETHER:
        sets[count] = [model.session(room) for _ in range(count)]
        model.step_together([(session, prompt_of(model, 16, at)) for at, session in enumerate(sets[count])])
    for _ in range(arguments.rounds):
        for count, sessions in sets.items():
            best[count] = [max(pair) for pair in zip(best[count], tokens_together(model, sessions))]
    print("| sessions | together, tokens/s | in turn, tokens/s | together / in turn | together / one session |")
    print("|---|---|---|---|---|")
    for count, (together, in_turn) in best.items():
        print(f"| {count} | {together:,.0f} | {in_turn:,.0f} | {together / in_turn:.2f} | {together / best[1][0]:.2f} |")
    for sessions in sets.values():
        for session in sessions:
            session.close()

    print("\n| tokens in common | own tokens | prompts | each by itself | by forks | ratio |\n|---|---|---|---|---|---|")
    for shared, own, count in ((64, 16, 8), (192, 16, 8), (192, 16, 32)):
        pairs = [seconds_of_beginnings(model, shared, own, count) for _ in range(arguments.rounds)]
        alone, forks = (min(each) for each in zip(*pairs))
        print(f"| {shared} | {own} | {count} | {alone * 1e3:.1f} ms | {forks * 1e3:.1f} ms | {alone / forks:.2f} |")


if __name__ == "__main__":
    main()
