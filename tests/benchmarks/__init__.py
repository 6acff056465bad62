"""Benchmarks: ours and the peer in one run, ratio printed (`make bench`)."""
