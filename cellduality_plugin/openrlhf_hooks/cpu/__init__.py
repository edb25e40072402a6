"""Lets the unmodified OpenRLHF train without a GPU: `cellduality-cpu <the command you would run on GPUs>`.

launch.py               sets the environment, then execs the command
site/sitecustomize.py   Python runs it at the start of every process below that command
post_import.py          the tables of patches, and the finder that applies one when its module is imported
openrlhf_patches.py     OpenRLHF's calls to CUDA, made for the CPU
library_patches.py      the same for torch, ray and vllm
flash_attn_stand_in.py  the four functions OpenRLHF imports from flash_attn, in plain torch
packed_attention.py     flash_attention_2 of packed rows, in plain torch
precision.py            bfloat16 where the processor has instructions for it, else float32
weight_sync.py          trainer to vLLM over gloo
"""
