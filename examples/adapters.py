"""LoRA adapters of our own: one for sums, one for code, each trained on text that can be made without a download."""

import inspect
import random
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments


MAX_TOKENS = 160


def sums() -> Iterator[tuple[str, str]]:
    """Yields word problems with their solutions."""
    draw = random.Random(0)
    things = ("apples", "books", "coins", "stamps")
    while True:
        a, b, c, thing = draw.randint(3, 60), draw.randint(3, 40), draw.randint(2, 9), draw.choice(things)
        question = f"Ann has {a} {thing}. She buys {b} more, and then {c} times as many as that. How many has she?"
        yield question, f"She buys {b}, and then {c} * {b} = {c * b}. {a} + {b} + {c * b} = {a + b + c * b}."


def code() -> Iterator[tuple[str, str]]:
    """Yields functions of Python's standard library, asked for by the first line of what they say of themselves."""
    while True:
        for module in (statistics, textwrap, inspect, random):
            for name, function in inspect.getmembers(module, inspect.isfunction):
                says = inspect.getdoc(function)
                if says and not name.startswith("_"):
                    source = inspect.getsource(function)
                    yield f"Write a Python function: {says.splitlines()[0]}", f"```python\n{source}\n```"


TASKS = {"sums": sums, "code": code}


class _Dialogues(Dataset):
    """Questions and answers as the chat template writes them; the loss counts on the answers alone."""

    def __init__(self, task: str, tokenizer, count: int):
        pairs = TASKS[task]()
        self.rows = [self._encode(tokenizer, *next(pairs)) for _ in range(count)]

    @staticmethod
    def _encode(tokenizer, question: str, answer: str) -> dict[str, list[int]]:
        messages = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        ids = (before + after)[:MAX_TOKENS]
        return {"input_ids": ids, "labels": ([-100] * len(before) + after)[:MAX_TOKENS]}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def unpack(folder: str, gguf_file: str, output: Path):
    """Writes a GGUF model as safetensors in single precision: what is quantised cannot be trained on."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_file, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_config(type(model.config)(**_without_quantization(model.config.to_dict())))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(output)
    tokenizer.save_pretrained(output)


def _without_quantization(config: dict) -> dict:
    return {key: value for key, value in config.items() if key not in ("quantization_config", "model_type")}


def train_adapter(task: str, base: Path, output: Path, steps: int):
    """Trains a LoRA adapter and writes it to a folder.

    Args:
        task: `"sums"` or `"code"`.
        base: Folder of the base model.
        output: Where the adapter goes.
        steps: How many steps of four dialogues.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(model, config)

    def collate(rows):
        longest = max(len(row["input_ids"]) for row in rows)
        pad = {"input_ids": tokenizer.pad_token_id or 0, "labels": -100, "attention_mask": 0}
        rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        return {
            name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])
            for name, value in pad.items()
        }

    settings = TrainingArguments(
        str(output.with_suffix(".checkpoints")),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=5e-4,
        lr_scheduler_type="cosine",
        save_strategy="no",
        report_to="none",
        logging_steps=10,
    )
    Trainer(model, settings, train_dataset=_Dialogues(task, tokenizer, 4 * steps), data_collator=collate).train()
    model.save_pretrained(output)
