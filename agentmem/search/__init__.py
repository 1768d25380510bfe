"""Search that is exact at every revision: words, vectors, and both together."""
