"""Traces of requests, replayed through an engine's memory rules: bytes and requests over time.

formats    which columns a trace has, and values of them       reading    streams of arrays, in order of time
service    how long a request runs                             needs      a curve as steps of requests that grow
sweep      without a limit: every step's bytes, exactly        bins       series and percentiles of bounded size
replaying  replay(), what it comes to                          search     the fewest GPUs, the least memory
drawing    the figure over time                                writing    series as Parquet or CSV
"""
