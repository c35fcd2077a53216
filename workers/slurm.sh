#!/usr/bin/env bash
# Workers of miiii-search on a Slurm cluster: each task of the array is one worker on one node. See workers/README.md.
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
# A preempted task goes back to Slurm's queue. A minute before the time limit this shell is told, and has the worker
# save its trials and hand them back, which takes the 40 seconds of `--grace` below at most.
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -euo pipefail

# Lines NAME=VALUE: MIIII_STORAGE, MIIII_STUDY, and whatever else the worker's environment needs. Only you may read it.
settings=${MIIII_SETTINGS:-$HOME/.config/miiii-search/worker.env}
# How the command is called here: the one of a virtual environment, or a container's, such as
#   apptainer exec --nv --bind "$HOME/.config/miiii-search,$SCRATCH" miiii-search-worker.sif miiii-search
read -ra command <<<"${MIIII_COMMAND:-$HOME/miiii-search/.venv/bin/miiii-search}"
# Running trials and compiled programs: a scratch file system if there is one, so that they are there after a requeue.
state=${MIIII_STATE:-${SCRATCH:-${TMPDIR:-/tmp}}/miiii-search-$(id -un)}

fail() {
  echo "error: $*" >&2
  exit 2
}

[ -r "$settings" ] || fail "cannot read $settings; write MIIII_STORAGE=postgresql://... and MIIII_STUDY=... into it"
[[ $(stat -L -c %a "$settings") == *00 ]] || fail "others may read the password in $settings; chmod 600 $settings"
# Read, not sourced: a password may hold any character, and no line is executed.
while IFS= read -r line || [ -n "$line" ]; do
  [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] && export "${BASH_REMATCH[1]}=${BASH_REMATCH[2]}"
done <"$settings"
[ -n "${MIIII_STORAGE:-}" ] || fail "$settings has no line MIIII_STORAGE=postgresql://..."

(umask 077 && mkdir -p "$state")
[ -O "$state" ] || fail "$state belongs to somebody else; name another folder in MIIII_STATE"
export XDG_STATE_HOME=$state/state JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$state/jax}

# The worker ends when its standard input does. Unlike a signal this can be said twice: Slurm may signal all processes
# of a job itself, and a worker that is signalled twice stops at once, without saving.
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

# Told to stop, and everything is handed back. At the time limit the job goes on later, if there is something left;
# what was cancelled stays so, and what is preempted is requeued by Slurm itself: both have left the state RUNNING.
job=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:?}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
[ "$(squeue --noheader --jobs="$job" --format=%T 2>/dev/null)" = RUNNING ] || exit 0
if "${command[@]}" status --json </dev/null | grep -q '"done": true'; then
  echo "the study is done"
else
  echo "work is left: job $job goes back to Slurm's queue"
  scontrol requeue "$job"
fi
