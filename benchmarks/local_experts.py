"""Answers per second of the local back end, in batches, against a plain loop of `generate` on the same model.

    python -m benchmarks.local_experts --model FOLDER [--gguf-file NAME] [--queries N] [--batch-size B]

Both answer the same queries greedily with the same number of tokens, in turn, so that whatever else the machine does
befalls both; the ratio is of medians. How many answers agree is printed too: batches differ in the last bits of their
arithmetic, by which a few answers may part.
"""

import argparse
import statistics
import time

import torch
from transformers.utils import logging

from zooter_hf import ExpertSpec
from zooter_hf.experts import GenerationSettings
from zooter_hf.experts.local import TransformersExpert


QUESTIONS = (
    "Why is the sky blue by day?",
    "Write a Python function that returns the n-th Fibonacci number, and say what it costs.",
    "What is 17 times 24?",
    "Sum up in one sentence what a router for language models does, and name two reasons to use one in practice.",
    "Translate 'good morning' into French.",
    "A train leaves at 9:40 and arrives at 13:05. It stops for 15 minutes on the way. How long does it move?",
)


def one_by_one(expert: TransformersExpert, queries: list[str], settings: GenerationSettings) -> list[str]:
    """Answers as a user would write it down first: one call of `generate` a query."""
    model, tokenizer, texts = expert.model, expert.tokenizer, []
    for query in queries:
        if tokenizer.chat_template is not None:
            chat = [{"role": "user", "content": query}]
            inputs = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        else:
            inputs = tokenizer(query, return_tensors="pt")
        ids = inputs["input_ids"].to(model.device)
        mask = inputs["attention_mask"].to(model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=list(expert.end_tokens) or None,
        )
        texts.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of a causal language model")
    parser.add_argument("--gguf-file", help="name of a GGUF file within it")
    parser.add_argument("--queries", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="after one of warming up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    options = {"batch_size": arguments.batch_size}
    if arguments.gguf_file:
        options["gguf_file"] = arguments.gguf_file
    queries = [QUESTIONS[place % len(QUESTIONS)] for place in range(arguments.queries)]
    settings = GenerationSettings(max_new_tokens=arguments.max_new_tokens)

    with TransformersExpert(ExpertSpec("measured", model=arguments.model, options=options)) as expert:
        expert.load()
        ways = {
            "`generate` one by one": lambda: one_by_one(expert, queries, settings),
            f"batches of {arguments.batch_size}": lambda: [each.text for each in expert.answer(queries, settings)],
        }
        seconds, texts = {way: [] for way in ways}, {}
        for turn in range(arguments.rounds + 1):
            for way, answer in ways.items():
                start = time.perf_counter()
                texts[way] = answer()
                if turn > 0:
                    seconds[way].append(time.perf_counter() - start)
        device, parameters = expert.model.device, expert.model.num_parameters() / 1e6
        dtype = str(expert.model.dtype).removeprefix("torch.")

    plain, batched = texts.values()
    print(f"{device}, {arguments.threads} threads, torch {torch.__version__}, {parameters:.1f}M parameters, {dtype}")
    same = sum(one == other for one, other in zip(plain, batched, strict=True))
    print(f"{len(queries)} queries, at most {arguments.max_new_tokens} new tokens; {same} answers agree\n")
    print("| way | seconds, median (least to most) | answers per second | ratio |")
    print("|:---|---:|---:|---:|")
    first = None
    for way, times in seconds.items():
        rate = len(queries) / statistics.median(times)
        first = first or rate
        span = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        print(f"| {way} | {span} | {rate:.2f} | {rate / first:.2f} |")


if __name__ == "__main__":
    main()
