#!/usr/bin/env python3
"""The held-out images as inputs of the compiled model, and what its outputs are worth.

    evaluate.py inputs IN.safetensors                       writes the input `image`
    evaluate.py figures OUT.safetensors TRACE.safetensors   reads `scores`, and what the routes chose

Python alone is enough: no packages.
"""

import array
import gzip
import json
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def idx(name):
    """Sizes and bytes of an idx file."""
    with gzip.open(os.path.join(HERE, name)) as file:
        data = file.read()
    rank = data[3]
    return struct.unpack(f">{rank}i", data[4 : 4 + 4 * rank]), data[4 + 4 * rank :]


def write(path, name, shape, values):
    head = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * len(values)]}}).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + values.tobytes())


def read(path):
    """Shape and elements of each tensor (f32 and i32 are what models give)."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = json.loads(data[8 : 8 + length])
    tensors.pop("__metadata__", None)
    for name, about in tensors.items():
        first, end = (8 + length + offset for offset in about["data_offsets"])
        yield name, about["shape"], array.array({"F32": "f", "I32": "i"}[about["dtype"]], data[first:end])


def figures(outputs, trace):
    _, labels = idx("test-labels.idx1.gz")
    ((_, (rows, classes), scores),) = [tensor for tensor in read(outputs) if tensor[0] == "scores"]
    best = [max(range(classes), key=lambda c: scores[row * classes + c]) for row in range(rows)]
    right = sum(found == label for found, label in zip(best, labels))
    with open(os.path.join(HERE, "figures.json")) as file:
        known = json.load(file)
    print(f"accuracy over {rows} held-out images: {100 * right / rows:.1f} % by the compiled library,")
    print(f"  {100 * known['accuracy_of_first_1000']:.1f} % by {known['framework']}, which trained it "
          f"({100 * known['accuracy_of_all_10000']:.2f} % over all 10,000)")
    for name, shape, indices in sorted(read(trace)):
        if not name.endswith(".indices"):
            continue
        choices = shape[1]
        experts = max(indices) + 1
        print(f"\n{name.removesuffix('.indices')}: how many of a hundred choices of a class go to each expert")
        print(" " * 10 + "".join(f"{expert:5}" for expert in range(experts)))
        for label, what in enumerate(CLASSES):
            chosen = [indices[row * choices + k] for row in range(rows) if labels[row] == label for k in range(choices)]
            print(f"{what:10}" + "".join(f"{100 * chosen.count(expert) / len(chosen):5.0f}" for expert in range(experts)))


def main():
    match sys.argv[1:]:
        case ["inputs", path]:
            shape, data = idx("test-images.idx3.gz")
            write(path, "image", list(shape), array.array("f", [byte / 255 for byte in data]))
        case ["figures", outputs, trace]:
            figures(outputs, trace)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
