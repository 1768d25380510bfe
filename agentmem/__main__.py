"""``python -m agentmem``: the same as the command ``agentmem``."""

from agentmem.cli import main

if __name__ == "__main__":
    main()
