"""A teacher is asked: questions to candidates in an append-only file, by a rule or a chat endpoint, within a budget."""
