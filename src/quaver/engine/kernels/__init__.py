"""Kernels for NVIDIA GPUs, in Triton. Each has a plain PyTorch twin, which defines its result."""
