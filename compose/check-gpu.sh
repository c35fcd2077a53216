#!/bin/sh
# Exit with an error if no NVIDIA driver is visible. This runs before the CUDA image, which has 5 GB, is built.
# Docker Desktop and WSL hide the driver from a build, so the check always passes there.
for trace in /proc/driver/nvidia/version /sys/module/nvidia /dev/nvidiactl /dev/dxg; do
  [ -e "$trace" ] && exit 0
done
grep -Eqi 'microsoft|linuxkit' /proc/version && exit 0
echo "error: this machine shows no NVIDIA GPU. To train on the CPU, put MIIII_DEVICE=cpu into .env beside" \
  "docker-compose.yml; to build for a GPU all the same, put MIIII_CHECK_GPU=no there" >&2
exit 2
