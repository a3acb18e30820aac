#!/bin/bash
# A pretraining on Slurm: one Ray head on the first machine, one Ray node on each other, the driver beside the head.
#
#   sbatch --nodes=2 deploy/slurm.sh pretrain.yaml out=/shared/runs/pretrain cluster.workers=2
#
# The folder of the run must be on storage that all machines share. Slurm sends SIGTERM to this script two minutes
# before the time limit; the driver then writes a checkpoint, and the job puts itself back into the queue.
#SBATCH --job-name=medformer
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

port=6379
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):$port
nodes=()

srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
nodes+=($!)
sleep 15
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
  nodes+=($!)
  sleep 15
fi

RAY_ADDRESS="$address" medformer pretrain "$@" cluster.wait_s=300 --resume &
driver=$!
trap 'kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if ((status > 128)); then  # `wait` was interrupted by the signal; the driver is still writing its checkpoint.
  status=0
  wait "$driver" || status=$?
fi
kill "${nodes[@]}" 2>/dev/null || true
if ((status == 3)); then  # Stopped as asked, before the end.
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
