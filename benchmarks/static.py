"""What a student without attention costs in accuracy, and saves in time.

    python -m benchmarks.static --train LLMROUTER_TRAIN [--encoder FOLDER] [--seeds N]

The teacher has the encoder named (that of the embedded router by default) and is trained on four fifths of the table;
its students learn from it and from the rewards of the same queries, and all are scored on the rest. Times are those of
the pipeline for one query of 64 tokens, and of a batch of 64, on one thread, in turn.
"""

import argparse
import statistics

import torch
from transformers import pipeline, set_seed
from transformers.utils import logging

from benchmarks.pipeline_overhead import in_turn, query_of
from benchmarks.routing import HEAD, HELD_OUT, SPLIT_SEED, Recipe, spread, train
from zooter_hf import DEFAULT_ROUTER, RewardTable, ZooterForRouting
from zooter_hf.conversion.reward_tables import load
from zooter_hf.distillation.static import distill_static
from zooter_hf.routing import predict


def make_teacher(table: RewardTable, encoder: str | None, seed: int) -> ZooterForRouting:
    """Trains the teacher."""
    set_seed(seed)
    if encoder is None:
        embedded = ZooterForRouting.from_pretrained(DEFAULT_ROUTER)
        fields = {"tokenizer": embedded.tokenizer, "max_query_tokens": embedded.config.max_query_tokens}
        router = ZooterForRouting.from_encoder(embedded.encoder, table.experts, **fields, **HEAD)
    else:
        router = ZooterForRouting.from_encoder(encoder, table.experts, **HEAD)
    return train(router, table, Recipe({"freeze_encoder": True}), seed)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="../shared/data/llmrouter_train", help="the table (default: %(default)s)")
    parser.add_argument("--encoder", help="folder or Hub id of the teacher's encoder")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    training, test = load(arguments.train, "llmrouter").split(HELD_OUT, seed=SPLIT_SEED)
    scores: dict[str, list[float]] = {}
    routers: dict[str, ZooterForRouting] = {}
    agreement = []

    def note(name: str, router: ZooterForRouting) -> torch.Tensor:
        chosen = predict(router, test.queries).probabilities.argmax(dim=-1)
        scores.setdefault(name, []).append(100 * test.rewards.gather(1, chosen.unsqueeze(1)).mean().item())
        routers[name] = router
        return chosen

    for seed in range(arguments.seeds):
        teacher = make_teacher(training, arguments.encoder, seed)
        chosen = note("teacher", teacher)
        for name, options in (
            ("student, of the teacher alone", {"teacher_weight": 1.0}),
            ("student, of teacher and rewards", {"teacher_weight": 0.5}),
            ("student, of rewards alone", {"teacher_weight": 0.0}),
        ):
            of_student = note(name, distill_static(teacher, [], table=training, seed=seed, **options))
            if options["teacher_weight"] == 1.0:
                agreement.append(100 * (of_student == chosen).float().mean().item())
    best = 100 * test.rewards[:, training.rewards.nanmean(dim=0).argmax()].mean().item()

    pipelines = [pipeline("zooter-routing", model=router, device="cpu") for router in routers.values()]
    one = in_turn([lambda route=route: route([query_of(64)]) for route in pipelines], 100)
    many = in_turn([lambda route=route: route([query_of(64)] * 64, batch_size=64) for route in pipelines], 5)
    print(
        f"{len(test):,} held-out queries, {arguments.seeds} seeds; best single model of the training part {best:.1f}\n"
    )
    print("| router | score | one query, µs | in batches of 64, µs a query |\n|---|---:|---:|---:|")
    for name, of_one, of_many in zip(routers, one, many, strict=True):
        times = f"{statistics.median(of_one) * 1e6:.0f} | {statistics.median(of_many) * 1e6 / 64:.0f}"
        print(f"| {name} | {spread(scores[name], '{:.1f}'.format)} | {times} |")
    same = spread(agreement, "{:.0f}".format)
    print(f"\nThe student of the teacher alone chooses as it does for {same} % of the queries.")


if __name__ == "__main__":
    main()
