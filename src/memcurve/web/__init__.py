"""The HTTP API and the page that `memcurve serve` serves: questions in, JSON out; needs the extra memcurve[web].

A request names no path and no address, nothing is written to disk, and no answer depends on another request.
"""
