"""What the log knows: versions, commits, differences, tags, conflicts, and whether it is whole."""
