"""Leases, queues and once: how agents keep out of each other's way, on the store that they share.

None of it takes revisions. What is asked for is a `Step` of a request, judged under the store's
lock like reads and writes, and committed with them or not at all (`agentmem.coordination.judging`).
"""
