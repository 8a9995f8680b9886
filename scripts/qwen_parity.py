#!/usr/bin/env python3
"""Reference values of transformers and peft for glasshouse-train's Qwen2, and the check of an adapter that it exported.

    python3 scripts/qwen_parity.py generate glasshouse-train/tests/vectors/qwen
    python3 scripts/qwen_parity.py real MODEL OUT   # reference of a real model's directory, for the ignored test
    python3 scripts/qwen_parity.py adapter DIR      # DIR as `cargo test -p glasshouse-train --test qwen_parity` writes it

Made on 2026-11-23 with torch 2.11.0, transformers 5.17.0 and peft 0.21.2, on the CPU.

Each case is a small random Qwen2 with grouped queries and biases, and LoRA over it. `reference.safetensors` holds the
adapters before and after 20 AdamW steps (lr 1e-3, betas 0.9 and 0.999, eps 1e-8, weight decay 0.01; step i reads batch
i mod 3), the first batch's logits before and after, the loss of every step, and the logits of two documents that the
test packs into one row. The base is eager attention; the adapters are f32, as peft makes them over any base.
"""
import json
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

STEPS, ROWS, LENGTH = 20, 2, 12
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: tied, dtype, rank, alpha, rslora, targets, whether B starts at random instead of zero
CASES = {
    "tied-f32": (True, torch.float32, 4, 8, False, ["q_proj", "v_proj"], False),
    "untied-f32": (False, torch.float32, 3, 5, True, ALL, True),
    "tied-bf16": (True, torch.bfloat16, 4, 8, False, ["q_proj", "v_proj"], False),
    "untied-bf16": (False, torch.bfloat16, 3, 5, True, ALL, True),
}


def generate(out):
    for number, (name, (tied, dtype, rank, alpha, rslora, targets, random_b)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        config = Qwen2Config(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, rms_norm_eps=1e-6,
            initializer_range=0.15, attn_implementation="eager",
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            for key, p in model.named_parameters():
                if key.endswith("bias"):
                    p.normal_(0, 0.3)
                if key.endswith("norm.weight") or "layernorm" in key:
                    p.normal_(1, 0.2)
        model = model.to(dtype)
        directory = out / name
        model.save_pretrained(directory)
        for extra in ["generation_config.json"]:
            (directory / extra).unlink(missing_ok=True)
        model = get_peft_model(model, LoraConfig(
            r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=targets, task_type="CAUSAL_LM"))
        if random_b:
            with torch.no_grad():
                for key, p in model.named_parameters():
                    if "lora_B" in key:
                        p.normal_(0, 0.05)
        model.train()
        lora = {k.replace(".default", ""): p for k, p in model.named_parameters() if p.requires_grad}
        tokens = torch.randint(0, 96, (3, ROWS, LENGTH))
        reference = {"tokens": tokens.to(torch.int64)}
        for key, p in lora.items():
            reference["before." + key] = p.detach().clone()
        optimizer = torch.optim.AdamW(lora.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        with torch.no_grad():
            reference["logits.before"] = model(input_ids=tokens[0]).logits.float()
        losses = []
        for step in range(STEPS):
            batch = tokens[step % 3]
            optimizer.zero_grad()
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            if step == 0:
                for key, p in lora.items():
                    reference["gradient." + key] = p.grad.clone()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            reference["logits.after"] = model(input_ids=tokens[0]).logits.float()
            pair = [model(input_ids=tokens[1][:1, :5]).logits.float()[0], model(input_ids=tokens[1][1:, :7]).logits.float()[0]]
            reference["logits.packed"] = torch.cat(pair)
        reference["losses"] = torch.tensor(losses)
        for key, p in lora.items():
            reference["after." + key] = p.detach().clone()
        save_file({k: v.contiguous() for k, v in reference.items()}, directory / "reference.safetensors")
        model.save_pretrained(directory / "adapter")
        (directory / "adapter" / "README.md").unlink(missing_ok=True)
        (directory / "case.json").write_text(json.dumps({
            "dtype": str(dtype).removeprefix("torch."), "rank": rank, "alpha": alpha, "rslora": rslora,
            "targets": targets, "steps": STEPS, "rows": ROWS, "length": LENGTH}, indent=1) + "\n")
        print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")


TEXT = (
    "The Amazon rainforest covers most of the Amazon basin of South America. This basin encompasses seven million "
    "square kilometres, of which five and a half million are covered by the rainforest. The majority of the forest, "
    "sixty percent, is in Brazil, followed by Peru with thirteen percent and Colombia with ten percent.")


def real(directory, out):
    """Logits, loss and gradients of an adapter with B = 0 on plain English, in f32."""
    from transformers import PreTrainedTokenizerFast
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    tokens = torch.tensor([tokenizer.encode(TEXT)])
    output = model(input_ids=tokens, labels=tokens)
    output.loss.backward()
    reference = {"tokens": tokens, "logits": output.logits[0].detach(), "loss": output.loss.detach().reshape(1)}
    for key, p in model.named_parameters():
        if p.requires_grad:
            reference["before." + key.replace(".default", "")] = p.detach()
            reference["gradient." + key.replace(".default", "")] = p.grad
    save_file({k: v.contiguous() for k, v in reference.items()}, out)
    print(f"{directory}: {tokens.shape[1]} tokens, loss {output.loss.item():.4f}")


def adapter(directory):
    """Loads base and exported adapter with peft and compares logits with those that Rust wrote."""
    base = AutoModelForCausalLM.from_pretrained(directory / "base", attn_implementation="eager", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, directory / "adapter").eval()
    expected = load_file(directory / "expected.safetensors")
    with torch.no_grad():
        found = model(input_ids=expected["tokens"].long()).logits.flatten(0, 1)
        with model.disable_adapter():
            plain = model(input_ids=expected["tokens"].long()).logits.flatten(0, 1)
    error = ((found - expected["logits"]).norm() / expected["logits"].norm()).item()
    moved = ((plain - expected["logits"]).norm() / expected["logits"].norm()).item()
    verdict = "the same" if error < 1e-5 and moved > 1e-3 else "NOT the same"
    print(f"{directory.name}: peft's logits with the exported adapter are {verdict}: relative L2 {error:.2e}, without the adapter {moved:.2e}")
    return verdict == "the same"


if __name__ == "__main__":
    mode, path = sys.argv[1], pathlib.Path(sys.argv[2])
    if mode == "generate":
        generate(path)
    elif mode == "real":
        real(path, sys.argv[3])
    else:
        sys.exit(0 if all([adapter(d) for d in sorted(path.iterdir()) if d.is_dir()]) else 1)
