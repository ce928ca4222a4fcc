"""Routing on the data of RouterDC (arXiv 2409.19886), where its authors' figures can be compared.

    python -m benchmarks.routerdc --train ROUTERDC_TRAIN --test ROUTERDC_TEST --encoder MINILM

Scores are averaged over the benchmarks. Those that are not in the training data are the out-of-distribution part.
ARC-easy is not trained on: without --test it is that part.
"""

from benchmarks.routing import HELD_OUT, SPLIT_SEED, Part, Recipe, parse, quiet, run
from zooter_hf.conversion.reward_tables import load


NOT_TRAINED_ON = {"arc_easy"}
RECIPE = Recipe({"freeze_encoder": True})
# Table 1 and table 2 of the paper; means over five and three test sets. The Zooter of that paper has no tags.
PUBLISHED = {
    "in distribution": {"best single model": 54.56, "Zooter": 53.97, "RouterDC": 58.54},
    "out of distribution": {"best single model": 43.95, "Zooter": 40.16, "RouterDC": 45.85},
}


def main():
    """Runs the benchmark."""
    arguments = parse(__doc__, "routerdc", "../shared/data/routerdc_train")
    quiet()
    table = load(arguments.train, "routerdc")
    seen = sorted(set(table.subsets) - NOT_TRAINED_ON)
    if arguments.test is None:
        training, held_out = table.select_subsets(seen).split(HELD_OUT, seed=SPLIT_SEED)
        unseen = sorted(set(table.subsets) & NOT_TRAINED_ON)
        parts = [Part("in distribution", held_out)]
        if unseen:
            parts.append(Part("out of distribution", table.select_subsets(unseen)))
    else:
        training, test = table.select_subsets(seen), load(arguments.test, "routerdc")
        if test.expert_names != table.expert_names:
            test = test.select_experts(table.expert_names)
        subsets = set(test.subsets)
        parts = [
            Part(name, test.select_subsets(chosen), PUBLISHED[name])
            for name, chosen in (
                ("in distribution", sorted(subsets & set(seen))),
                ("out of distribution", sorted(subsets - set(seen))),
            )
            if chosen
        ]
    run(arguments, RECIPE, training, parts, average="subsets")


if __name__ == "__main__":
    main()
