"""Everything online: HTTP, engine, state in Redis, FAISS indexes. Never torch."""
