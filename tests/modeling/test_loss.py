"""The loss against formulas worked out row by row, and against torch's own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zooter_hf.modeling import routing_loss


def kl_by_hand(targets, logits, mask):
    """KL(target || softmax over the known experts), mean over the rows that have any: plain Python."""
    rows = []
    for target, row, known in zip(targets, logits, mask, strict=True):
        if not any(known):
            continue
        total = sum(math.exp(x) for x, k in zip(row, known, strict=True) if k)
        rows.append(
            sum(
                t * (math.log(t) - math.log(math.exp(x) / total))
                for t, x, k in zip(target, row, known, strict=True)
                if k and t > 0
            )
        )
    return sum(rows) / len(rows) if rows else 0.0


@st.composite
def masked_batches(draw):
    batch, experts = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    finite = st.floats(-5, 5)
    logits = [[draw(finite) for _ in range(experts)] for _ in range(batch)]
    mask = [[draw(st.booleans()) for _ in range(experts)] for _ in range(batch)]
    targets = []
    for known in mask:
        weights = [draw(st.integers(0, 3)) if k else 0 for k in known]
        if sum(weights) == 0:
            weights = [float(k) for k in known]
        total = sum(weights) or 1
        targets.append([w / total for w in weights])
    return targets, logits, mask


@settings(deadline=None, max_examples=200)
@given(masked_batches())
def test_kl_with_masks_equals_the_formula(batch):
    targets, logits, mask = batch
    scores = torch.tensor(logits, requires_grad=True)
    loss = routing_loss(scores, torch.tensor(targets), torch.tensor(mask))
    assert loss.item() == pytest.approx(kl_by_hand(targets, logits, mask), abs=1e-4)
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[~torch.tensor(mask)] == 0).all(), "an unknown reward must not move its expert's score"


def test_kl_without_masks_equals_torch():
    logits, targets = torch.randn(6, 4), torch.softmax(torch.randn(6, 4), dim=-1)
    reference = torch.nn.functional.kl_div(logits.log_softmax(-1), targets, reduction="batchmean")
    torch.testing.assert_close(routing_loss(logits, targets), reference)


def test_kl_of_the_target_itself_is_zero():
    logits = torch.randn(3, 4)
    assert routing_loss(logits, logits.softmax(-1)).item() == pytest.approx(0, abs=1e-6)


def test_class_indices_equal_torch_and_skip_ignored():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, -100, 1, 1])
    reference = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(routing_loss(logits, labels), reference)


def test_class_indices_with_mask_ignore_unknown_experts():
    logits = torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]])
    mask = torch.tensor([[True, True, False], [True, False, True]])
    # Second row: the labelled expert itself is unknown, so the row does not count.
    loss = routing_loss(logits, torch.tensor([1, 1]), mask)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(1) + math.exp(2))), abs=1e-5)


def test_nothing_known_gives_zero_and_no_nan():
    scores = torch.randn(2, 3, requires_grad=True)
    loss = routing_loss(scores, torch.full((2, 3), 1 / 3), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


@pytest.mark.parametrize(
    ("labels", "mask", "message"),
    [
        (torch.rand(2, 4), None, r"\(2, 3\), got \(2, 4\)"),
        (torch.rand(2), None, r"\(2, 3\), got \(2,\)"),
        (torch.tensor([0, 1, 2]), None, r"\(2,\), got \(3,\)"),
        (torch.rand(2, 3), torch.ones(2, dtype=torch.bool), "expert_mask"),
    ],
)
def test_wrong_shapes_are_named(labels, mask, message):
    with pytest.raises(ValueError, match=message):
        routing_loss(torch.randn(2, 3), labels, mask)
