import re

import torch

from zooter_hf import DistillationArguments, RewardTable
from zooter_hf.distillation import fit_tau
from zooter_hf.distillation.temperature import CANDIDATES


def noisy_table(signal):
    """Each query has a side; one of the two experts is better on it, the third is always middling."""
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(2, (400,), generator=generator)
    means = torch.tensor([[0.5 + signal, 0.5 - signal, 0.5], [0.5 - signal, 0.5 + signal, 0.5]])[side]
    rewards = torch.bernoulli(means, generator=generator)
    words = "abcdefghijklmnopqrstuvwxyz"
    table = RewardTable.from_rows(
        {"query": "".join(words[int(d)] for d in str(row)) + " x", "rewards": dict(zip("abc", r, strict=True))}
        for row, r in enumerate(rewards.tolist())
    )
    embeddings = torch.cat([side.unsqueeze(1) * 2.0 - 1.0, torch.randn(400, 7, generator=generator)], dim=1)
    return table, embeddings


def test_a_candidate_in_units_of_the_rewards(tmp_path):
    table, embeddings = noisy_table(0.4)
    standardised = fit_tau(table, embeddings, DistillationArguments(tmp_path, use_cpu=True))
    raw = fit_tau(table, embeddings, DistillationArguments(tmp_path, standardize=False, use_cpu=True))
    assert standardised in CANDIDATES
    spread = table.rewards.std(correction=0).item()
    assert abs(raw - standardised * spread) < 1e-9


def test_the_softest_that_costs_nothing(tmp_path):
    """Where any target leads to the same routing, the largest is taken."""
    table, embeddings = noisy_table(0.5)
    assert fit_tau(table, embeddings, DistillationArguments(tmp_path, use_cpu=True)) == max(CANDIDATES)


def test_what_is_learned_by_heart_does_not_count(tmp_path, caplog):
    """Rewards that nothing can predict are worth their mean, however well a head fits those it has seen."""
    table, _ = noisy_table(0.0)
    embeddings = torch.randn(400, 200, generator=torch.Generator().manual_seed(1))
    with caplog.at_level("INFO", logger="zooter_hf"):
        assert fit_tau(table, embeddings, DistillationArguments(tmp_path, use_cpu=True)) == max(CANDIDATES)
    of_candidates = [float(score) for score in re.findall(r": (0\.\d+)[,.]", caplog.text)]
    assert len(of_candidates) == len(CANDIDATES)
    assert max(of_candidates) < table.rewards.mean() + 0.1  # about 0.9 for a head that has seen them
