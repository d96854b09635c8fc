"""Answers from several chains of reasoning: reading them, checking steps, voting, aggregation of reasoning."""
