#!/usr/bin/env bash
# Everything that needs a GPU, in under 10 minutes:
#
#     bash bench/gpu.sh FOLDER
#
# On a machine with a GPU, JAX for it, Flax, Optax, and this project's other packages. Tables (a file each, and what
# went wrong), JSON and pictures are written to FOLDER; a step that takes too long is cut off, and the next one begins.
set -uo pipefail
[ $# -eq 1 ] || { sed -n '2,7p' "$0"; exit 2; }
mkdir -p "$1"
results=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export JAX_COMPILATION_CACHE_DIR="$results/../gpu-compilation-cache"
failed=0

step() {
  local name=$1 seconds=$2
  shift 2
  local began=$SECONDS
  timeout "$seconds" "$@" >"$results/$name.txt" 2>&1
  local status=$?
  tail -n 25 "$results/$name.txt"
  echo "== $name: exit $status after $((SECONDS - began)) s"
  [ "$status" -eq 0 ] || failed=1
}

if ! python -c 'import jax, sys; sys.exit(jax.default_backend() == "cpu")'; then
  echo "bench/gpu.sh needs a JAX that finds a GPU; this one finds none" >&2
  exit 2
fi
step training 75 python bench/training.py --quick --json "$results/training.json"
step lanes 210 python bench/lanes.py --widths 1 4 16 32 64 --json "$results/lanes.json" --figure "$results/lanes.png"
step precision 60 python bench/precision.py --json "$results/precision.json"
step refill 75 python bench/refill.py --json "$results/refill.json" --figure "$results/refill.png"
step telemetry 50 python bench/telemetry.py --quick --json "$results/telemetry.json"
step scaling 50 python bench/scaling.py --quick --json "$results/scaling.json"
step tests 70 python -m pytest -q -p no:cacheprovider -k "not masks" \
  tests/training/test_loss.py tests/training/test_model.py tests/training/test_program.py
echo "== $SECONDS s in all; results in $results"
exit "$failed"
