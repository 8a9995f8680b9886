#!/usr/bin/env python3
"""A Hugging Face directory of Qwen2.5-0.5B's published shape with random bf16 weights, in shards, as transformers saves one.

    scripts/random_qwen.py OUT TOKENIZER_DIR

For machines that cannot reach the hub. TOKENIZER_DIR gives tokenizer.json and tokenizer_config.json of any model whose
vocabulary is at most 151,936. Needs torch and transformers.
"""
import pathlib
import shutil
import sys

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

out, tokenizer = map(pathlib.Path, sys.argv[1:3])
torch.manual_seed(0)
config = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    rope_theta=1e6,
    max_position_embeddings=32768,
)
model = Qwen2ForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(out, max_shard_size="300MB")
for file in tokenizer.iterdir():
    if file.name.startswith(("tokenizer", "chat_template")):
        shutil.copy(file, out / file.name)
print("\n".join(sorted(f"{file.stat().st_size:>12} {file.name}" for file in out.iterdir())))
