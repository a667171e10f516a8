#!/bin/bash
# AlexNet on four hosts of eight GPUs: sbatch examples/slurm.sh
# Requeued after a failure, the same job goes on from its last checkpoint: the name of the launch is the job's number.
#SBATCH --job-name=alexnet
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8

# Each host fetches s3://bucket/imagenet to its own disk once; RUN needs to be seen by the first host only.
export ALEXNET_CACHE="${TMPDIR:-/tmp}/alexnet"

srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$first:29400" --rdzv-id "$SLURM_JOB_ID" \
  -m alexnet train s3://bucket/imagenet --out runs/imagenet \
  --recipe paper --batch-size 1024 --parallel one-weird-trick --fc-batch-size 128 --checkpoint-interval 60
