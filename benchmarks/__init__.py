"""What agentmem costs beside its alternatives, both measured in turn in one run.

``python -m benchmarks --help`` says how to run them.
"""
