"""``agentmem demo``: the races of agents on a shared memory, without and with agentmem."""
