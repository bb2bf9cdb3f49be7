#!/usr/bin/env bash
# compile.sh OUT: the program that runs cases on a GPU. It needs libc alone, and finds the driver when it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec cc -std=gnu11 -O2 -Wall -Wextra -Wl,--wrap=dlsym tests/gpu/*.c kernels/runtime/cuda/cuda*.c kernels/runtime/error.c \
    -o "$1" -ldl -lm
