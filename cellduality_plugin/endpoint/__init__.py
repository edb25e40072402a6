"""A policy behind OpenAI-compatible endpoints; needs neither openrlhf nor vllm nor torch."""
