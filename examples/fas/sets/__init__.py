"""The four public data sets on disk.

- ``opened``: a list file to samples in one call, with a report to print and a cache.
- ``lists``: the rows of a list and their defects; ``codes``: what a path says of attack and person; ``published``: how
  many rows there should be. ``images`` opens what the rows name.
- ``layouts`` writes samples, or the whole stand-in, in the same form; ``names``: where an image belongs.
- ``descriptors``: what the infrared input can be made of.
"""
