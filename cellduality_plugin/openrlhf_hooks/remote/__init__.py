"""OpenRLHF's remote rewards, over HTTP or from a file, judged by a policy behind an endpoint; needs no openrlhf."""
