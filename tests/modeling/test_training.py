"""A router trains with the library's own trainer."""

import pytest
import torch
from transformers import AutoModel, Trainer, TrainingArguments

from tests.conftest import QUERIES


@pytest.fixture
def rows(tokenizer):
    targets = torch.eye(3)[[0, 1, 2, 0, 1]] * 0.7 + 0.1
    return [
        {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": target,
            "expert_mask": torch.tensor([True, True, True]),
        }
        for ids, target in zip(tokenizer(QUERIES)["input_ids"], targets, strict=True)
    ]


def train(router, rows, tokenizer, folder, **arguments):
    def collate(batch):
        inputs = tokenizer.pad({"input_ids": [row["input_ids"] for row in batch]}, return_tensors="pt")
        return {
            **inputs,
            "labels": torch.stack([row["labels"] for row in batch]),
            "expert_mask": torch.stack([row["expert_mask"] for row in batch]),
        }

    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 5,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "seed": 1,
        "disable_tqdm": True,
        **arguments,
    }
    trainer = Trainer(model=router, args=TrainingArguments(**settings), train_dataset=rows, data_collator=collate)
    return trainer, trainer.train()


def test_trainer_learns_soft_labels(make_router, rows, tokenizer, tmp_path):
    router = make_router(head="mlp", head_dropout=0.0)
    trainer, result = train(router, rows, tokenizer, tmp_path, num_train_epochs=150, learning_rate=3e-3)
    assert result.training_loss < 0.5
    router.eval()
    with torch.no_grad():
        for row in rows:
            logits = router(input_ids=torch.tensor([row["input_ids"]])).logits
            assert logits.argmax() == row["labels"].argmax()
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "README.md").exists()
    assert AutoModel.from_pretrained(tmp_path / "saved").tokenizer is not None


def test_gradient_accumulation_does_not_change_the_step(make_router, rows, tokenizer, tmp_path):
    """Two micro-batches of two must move the weights like one batch of four."""
    steps = []
    for name, size, accumulation in (("one", 4, 1), ("two", 2, 2)):
        router = make_router(head_dropout=0.0)
        for module in router.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        train(
            router,
            rows[:4],
            tokenizer,
            tmp_path / name,
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            learning_rate=0.1,
            optim="sgd",
            max_grad_norm=0.0,
        )
        steps.append(router.classifier.out_proj.weight.detach().clone())
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=1e-4)
