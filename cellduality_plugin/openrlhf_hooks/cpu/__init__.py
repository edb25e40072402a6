"""Lets the unmodified OpenRLHF train without a GPU: `cellduality-cpu <the command you would run on GPUs>`."""
