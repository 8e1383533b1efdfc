"""A speech service: an HTTP front in one process, each recipe's engine in another.

`wire` is what they say to each other, `worker` the engine's side, `engines` the front's.
"""
