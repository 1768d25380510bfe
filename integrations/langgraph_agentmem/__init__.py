"""agentmem for LangGraph: a store, a checkpointer and nodes that parallel agents cannot corrupt."""
