#!/usr/bin/env python3
"""What transformers makes of a data set of conversations: the same lines that `--example encode` prints.

    python3 -m venv venv && venv/bin/pip install transformers jinja2
    venv/bin/python scripts/encode_reference.py MODEL_FOLDER DATA.jsonl > reference.jsonl
    cargo run -p glasshouse-train --example encode -- MODEL_FOLDER DATA.jsonl | cmp - reference.jsonl

The text is tokenized whole here and piece by piece there, so that answers which begin with white space differ in their
first tokens: there they are tokenized as a model writes them after its prompt. Which tokens are learnt is found here by searching the token
list for the assistant's header and the end of its turn, which works for ChatML templates only.
"""
import json
import sys

from transformers import PreTrainedTokenizerFast

folder, data = sys.argv[1:]
config = json.load(open(f"{folder}/tokenizer_config.json"))
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", eos_token=config["eos_token"])
tokenizer.chat_template = config["chat_template"]
header = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
end = tokenizer.convert_tokens_to_ids("<|im_end|>")
for line in open(data):
    example = json.loads(line)
    if "question" in example:
        messages = [{"role": "user", "content": example["question"]}, {"role": "assistant", "content": example["answer"]}]
    else:
        messages = example["messages"]
    text = tokenizer.apply_chat_template(messages, tools=example.get("tools"), tokenize=False)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    learnt, at = [0] * len(tokens), 0
    while at < len(tokens):
        if tokens[at : at + len(header)] == header:
            at += len(header)
            while True:
                learnt[at] = 1
                at += 1
                if tokens[at - 1] == end:
                    break
        else:
            at += 1
    print('{"tokens":' + json.dumps(tokens) + ',"learnt":' + json.dumps(learnt) + "}")
