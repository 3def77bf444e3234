"""Critics: networks trained on real training clips that the filters look through.

A file offers `Params`, `fit(params, clips, hook, seed) -> Checkpoint` and a function that looks at clips with the checkpoint.
"""
