#!/bin/bash
# A pretraining on Slurm: a Ray head on the first machine, a Ray node on each other, and `medformer pretrain` beside the head.
#
#   sbatch --nodes=2 deploy/slurm.sh pretrain.yaml out=/shared/runs/pretrain cluster.workers=2
#
# The folder of the run and the shards must be on storage that all machines share, and `medformer` and `ray` on the PATH
# of all of them (`. /shared/venv/bin/activate` before sbatch).
#
# Two minutes before the time limit Slurm sends SIGUSR1 to this script, and with `PreemptParameters=send_user_signal` also
# before another job takes the machines. The run then writes a checkpoint, and the job puts itself back into the queue.
# Where machines are taken without that signal, Slurm queues the job again (`--requeue`), and it goes on from the newest
# checkpoint. `scancel --batch --signal=USR1 JOB` asks for the same by hand; `scancel JOB` ends it.
#SBATCH --job-name=medformer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

port=${MEDFORMER_RAY_PORT:-6379}
join_s=${MEDFORMER_JOIN_S:-300}
# Steps do not inherit --cpus-per-task.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9 RAY_worker_niceness=0
# Whoever reaches the ports of Ray can run programs as you: a token that only this job knows.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/medformer-$SLURM_JOB_ID}

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1') # reads to the end, unlike head
# A machine in several networks: MEDFORMER_HEAD_IP says by which address the others reach it.
ip=${MEDFORMER_HEAD_IP:-$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{print $1}')}
nodes=()
driver=

end() {
  for process in $driver "${nodes[@]}"; do kill "$process" 2> /dev/null || true; done
  wait || true
  srun --ntasks="$SLURM_JOB_NUM_NODES" rm -rf "$RAY_TMPDIR" || true
}
trap end EXIT

srun --nodes=1 --ntasks=1 -w "$head" mkdir -p -m 700 "$RAY_TMPDIR"
srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --node-ip-address="$ip" --port="$port" --dashboard-host=127.0.0.1 \
  --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
nodes+=($!)
until ray health-check --address "$ip:$port" 2> /dev/null; do
  kill -0 "${nodes[0]}" || { echo "medformer: the head of Ray has ended; its messages are above" >&2; exit 1; }
  ((SECONDS < join_s)) || { echo "medformer: the head of Ray did not start within $join_s s" >&2; exit 1; }
  sleep 2
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" mkdir -p -m 700 "$RAY_TMPDIR"
  srun --nodes="$others" --ntasks="$others" --exclude="$head" \
    ray start --address="$ip:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
  nodes+=($!)
fi

# `cluster.wait_s`: machines that have not joined yet are waited for, and told when they do not come.
RAY_ADDRESS="$ip:$port" medformer pretrain "$@" "cluster.wait_s=$join_s" --resume &
driver=$!
trap 'kill -TERM "$driver" 2> /dev/null || true' USR1 TERM
# A signal interrupts `wait`, and the run is still writing its checkpoint: it has ended when it is no longer there.
while kill -0 "$driver" 2> /dev/null; do
  if ! kill -0 "${nodes[0]}" 2> /dev/null; then
    echo "medformer: the head of Ray has ended; its messages are above" >&2
    kill -TERM "$driver" 2> /dev/null || true
    break
  fi
  sleep 2 &
  wait $! || true
done
status=0
wait "$driver" || status=$?
driver=

if ((status == 3)); then # Stopped as asked, before the end.
  echo "medformer: stopped before the end; the job is queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
