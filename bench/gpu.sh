#!/usr/bin/env bash
# Everything that needs a GPU, in ten minutes, the most telling first:
#
#     bash bench/gpu.sh FOLDER [WHEELS]      on a machine with a GPU
#     bash bench/gpu.sh --small FOLDER       the same with tiny runs on a CPU, to try the script
#
# It needs Python with a JAX that finds a GPU, Flax and Optax, and this project's other packages. What is missing of the
# latter is installed from the wheels in the folder WHEELS. Nothing is downloaded.
#
# Each part writes FOLDER/PART.txt and FOLDER/PART.json while it runs. A part that fails or takes too long does not stop
# the others. FOLDER/parts.jsonl has one line per part with its exit status. GPU_SECONDS (600) limits the whole.
set -uo pipefail
small=() factor=1
if [ "${1:-}" = --small ]; then
  small=(--small) factor=4 # the CPU may be busy
  export JAX_PLATFORMS=cpu
  shift
fi
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n '2,14p' "$0"
  exit 2
fi
mkdir -p "$1"
results=$(cd "$1" && pwd)
wheels=${2:+$(cd "$2" && pwd)}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH="$PWD:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export JAX_COMPILATION_CACHE_DIR="$results/compilation-cache"
failed=0

part() {
  local name=$1 seconds=$2
  shift 2
  local began=$SECONDS left=$((${GPU_SECONDS:-600} * factor - SECONDS))
  seconds=$((seconds * factor))
  [ "$seconds" -le "$left" ] || seconds=$left
  local status=skipped
  if [ "$seconds" -gt 5 ]; then
    timeout --kill-after=10 "$seconds" "$@" >"$results/$name.txt" 2>&1
    status=$?
    tail -n 25 "$results/$name.txt"
  fi
  echo "== $name: exit $status after $((SECONDS - began)) s, $SECONDS s in all"
  printf '{"part": "%s", "exit": "%s", "seconds": %d}\n' "$name" "$status" $((SECONDS - began)) >>"$results/parts.jsonl"
  [ "$status" = 0 ] || failed=1
}

if [ -n "$wheels" ]; then
  python -m venv --system-site-packages "$results/venv" || exit 2
  PATH="$results/venv/bin:$PATH"
  part wheels 90 python -m pip install --quiet --no-deps "$wheels"/*.whl
fi
part versions 30 python bench/gpu_versions.py --json "$results/versions.json"
if [ ${#small[@]} -eq 0 ] && ! python -c 'import jax, sys; sys.exit(jax.default_backend() == "cpu")'; then
  echo "bench/gpu.sh needs a JAX that finds a GPU; this one finds none" >&2
  exit 2
fi
part speeds 230 python bench/gpu_speeds.py --seconds 190 --json "$results/speeds.json" "${small[@]}"
part precision 75 python bench/precision.py --json "$results/precision.json" "${small[@]}"
part refill 75 python bench/refill.py --json "$results/refill.json" "${small[@]}"
part workers 130 python bench/gpu_workers.py --json "$results/workers.json" "${small[@]}"
part tests 60 python -m pytest -q -p no:cacheprovider -k "not masks" -m 'not slow' \
  tests/training/test_loss.py tests/training/test_model.py
echo "== $SECONDS s in all; results in $results"
exit "$failed"
