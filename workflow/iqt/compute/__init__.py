"""The machine that a job runs on: devices, GPUs that are claimed, memory."""
