"""Everything that touches OpenRLHF, vLLM or Ray."""
