"""The benchmarks run, and notice what is wrong."""
