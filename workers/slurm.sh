#!/usr/bin/env bash
# Workers of miiii-search on a Slurm cluster. Each task of the array is one worker on one node; see workers/README.md.
#
#     sbatch --array=0-7 workers/slurm.sh
#
#SBATCH --job-name=miiii-search
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --output=miiii-search-%A-%a.log
#SBATCH --open-mode=append
# A preempted task returns to Slurm's queue. One minute before the time limit, Slurm signals this shell. The shell has
# the worker save its trials and return them, which takes at most the 40 seconds of `--grace` below.
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

# Lines NAME=VALUE: MIIII_STORAGE, MIIII_STUDY, and other variables for the worker. Only you may be able to read it.
settings=${MIIII_SETTINGS:-$HOME/.config/miiii-search/worker.env}
# The command to call: that of a virtual environment, or that of a container, such as
#   apptainer exec --nv --bind "$HOME/.config/miiii-search,$SCRATCH" miiii-search-worker.sif miiii-search
read -ra command <<<"${MIIII_COMMAND:-$HOME/miiii-search/.venv/bin/miiii-search}"
# Folder for running trials and compiled programs: a scratch file system if there is one, to survive a requeue.
state=${MIIII_STATE:-${SCRATCH:-${TMPDIR:-/tmp}}/miiii-search-$(id -un)}

fail() {
  echo "error: $*" >&2
  exit 2
}

[ -r "$settings" ] || fail "cannot read $settings; write MIIII_STORAGE=postgresql://... and MIIII_STUDY=... into it"
[[ $(stat -L -c %a "$settings") == *00 ]] || fail "others may read the password in $settings; chmod 600 $settings"
# The file is read, not sourced: a password may contain any character, and no line is executed.
while IFS= read -r line || [ -n "$line" ]; do
  [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] && export "${BASH_REMATCH[1]}=${BASH_REMATCH[2]}"
done <"$settings"
[ -n "${MIIII_STORAGE:-}" ] || fail "$settings has no line MIIII_STORAGE=postgresql://..."

(umask 077 && mkdir -p "$state")
[ -O "$state" ] || fail "$state belongs to somebody else; name another folder in MIIII_STATE"
export XDG_STATE_HOME=$state/state JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$state/jax}

# The worker ends when its standard input ends. Unlike a signal, this is harmless when repeated. Slurm itself may signal
# all processes of a job, and a worker that is signalled twice stops at once, without saving.
exec 9> >(exec "${command[@]}" work --with-parent --grace 40)
worker=$!
told=0
trap 'told=$((told + 1)); exec 9>&-' TERM INT
while
  before=$told status=0
  wait "$worker" || status=$?
  [ "$told" -ne "$before" ] # a signal ends `wait`, not the worker
do :; done
[ "$told" -gt 0 ] && [ "$status" -eq 0 ] || exit "$status"

# The worker was told to stop and has returned its trials. At the time limit, the job is requeued if work is left. A
# cancelled job stays cancelled, and Slurm itself requeues a preempted one: both have left the state RUNNING.
job=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:?}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
[ "$(squeue --noheader --jobs="$job" --format=%T 2>/dev/null)" = RUNNING ] || exit 0
if "${command[@]}" status --json </dev/null | grep -q '"done": true'; then
  echo "the study is done"
else
  echo "work is left: job $job goes back to Slurm's queue"
  scontrol requeue "$job"
fi
