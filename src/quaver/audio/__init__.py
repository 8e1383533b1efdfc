"""Samples in and out: files, pipes, levels and the seams between segments.

Samples are mono float32 arrays of shape [n] in -1..1 everywhere; only this room knows of 16 bits,
containers and encoders. PyAV is imported when a file is first opened, so importing this is light.
"""
