"""Measuring and reporting measurements."""
