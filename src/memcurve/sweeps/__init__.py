"""Sweeps: every point of a grid of models, engines, options, contexts and batches, as rows of exact bytes.

spec.py says what is asked, rows.py makes the rows of a chunk of it, files.py keeps them, workers.py shares chunks out.
A chunk is a function of the spec and its number alone: so a sweep can stop anywhere and go on, in any number of processes.
"""
