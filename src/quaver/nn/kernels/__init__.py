"""Triton kernels; each has a plain PyTorch twin that says what it computes."""
