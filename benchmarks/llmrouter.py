"""Routing on the score table of LLMRouter (ulab-uiuc).

    python -m benchmarks.llmrouter --train LLMROUTER_TRAIN --test LLMROUTER_TEST --encoder MINILM

Scores are means over the queries.
"""

from benchmarks.routing import HELD_OUT, SPLIT_SEED, Part, Recipe, parse, quiet, run
from zooter_hf.conversion.reward_tables import load


RECIPE = Recipe({"freeze_encoder": True})


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "llmrouter", "../shared/data/llmrouter_train")
    quiet()
    training = load(arguments.train, "llmrouter")
    if arguments.test is None:
        training, test = training.split(HELD_OUT, seed=SPLIT_SEED)
    else:
        test = load(arguments.test, "llmrouter")
        if test.expert_names != training.expert_names:
            test = test.select_experts(training.expert_names)
    run(arguments, RECIPE, training, [Part("test queries", test)], average="queries")


if __name__ == "__main__":
    main()
