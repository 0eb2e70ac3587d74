"""Experiments: many simulations that answer one question, in a folder that can be interrupted and added to.

    experiment   what a file for `edgefl compare` and `edgefl tune` may say
    cases        one simulation as plain values, and the file that its result has
    grid         from an experiment to the cases that it compares
    tuning       from an experiment to the trials of a strategy, and the best of them
    measure      runs one case, and measures it round by round
    worker       a process that runs cases; pool has several of them
    added        runs from elsewhere, which stand beside those that were run here
    results      curves of runs, and what they come to
    intervals    means with their intervals, paired by seed
    protocols    quality under a budget, cost to a target, robustness
    tables       all of that as text; figures draws it

A run is a deterministic function of its case, so its file is named by the case's hash and is never run twice.
"""
