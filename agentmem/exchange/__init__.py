"""Out of a store and back: backups, and exports as JSON lines."""
