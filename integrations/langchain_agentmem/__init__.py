"""agentmem for LangChain: memory, tools and retrieval that parallel agents cannot corrupt."""
