"""Small models to start from on a CPU."""

MODEL_FILES = ("model.safetensors", "tokenizer.json")  # the files of a model whose manifests tell what it was made of
