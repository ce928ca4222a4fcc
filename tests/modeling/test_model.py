import copy

import pytest
import torch
from transformers import AutoModel

from tests.conftest import ENCODERS, EXPERTS, QUERIES
from zooter_hf import RoutingOutput, ZooterConfig, ZooterForRouting


pytestmark = pytest.mark.parametrize("encoder", list(ENCODERS))


def batch_of(router, tokenizer, queries=tuple(QUERIES)):
    pad = router.config.encoder_config.pad_token_id
    inputs = tokenizer(list(queries), padding=True, return_tensors="pt", return_token_type_ids=False)
    inputs["input_ids"][inputs["attention_mask"] == 0] = pad
    return inputs


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_forward_shapes_and_gradients(make_router, tokenizer, encoder, head, pooling):
    router = make_router(encoder, head=head, pooling=pooling).train()
    labels = torch.softmax(torch.randn(len(QUERIES), 3), dim=-1)
    output = router(**batch_of(router, tokenizer), labels=labels, output_hidden_states=True)
    assert isinstance(output, RoutingOutput)
    assert output.logits.shape == (len(QUERIES), 3)
    assert output.query_embedding.shape == (len(QUERIES), 16)
    assert len(output.hidden_states) >= 2
    output.loss.backward()
    without = [name for name, p in router.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "idle parameters break distributed training"


def test_padding_does_not_change_a_query(make_router, tokenizer, encoder):
    for pooling in ("cls", "mean"):
        router = make_router(encoder, pooling=pooling)
        with torch.no_grad():
            together = router(**batch_of(router, tokenizer)).logits
            alone = torch.cat([router(**batch_of(router, tokenizer, [query])).logits for query in QUERIES])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_pooling_equals_its_definition(make_router, tokenizer, encoder):
    router = make_router(encoder, pooling="mean")
    inputs = batch_of(router, tokenizer)
    with torch.no_grad():
        states = router.encoder(**inputs).last_hidden_state
        embedding = router(**inputs).query_embedding
    for row, mask, mean in zip(states, inputs["attention_mask"], embedding, strict=True):
        torch.testing.assert_close(row[mask.bool()].mean(0), mean, atol=1e-5, rtol=1e-4)
    router.config.pooling = "cls"
    with torch.no_grad():
        torch.testing.assert_close(router(**inputs).query_embedding, states[:, 0])


def test_save_and_load_give_the_same_numbers(make_router, tokenizer, encoder, tmp_path):
    for head in ("linear", "mlp", "cosine"):
        router = make_router(encoder, head=head)
        router.save_pretrained(tmp_path / head)
        loaded = AutoModel.from_pretrained(tmp_path / head)
        assert type(loaded) is ZooterForRouting
        inputs = batch_of(router, tokenizer)
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, router(**inputs).logits)


def test_from_encoder_keeps_the_encoders_weights(make_router, tokenizer, encoder, tmp_path):
    pretrained = make_router(encoder).encoder
    pretrained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    router = ZooterForRouting.from_encoder(str(tmp_path), experts=EXPERTS, head="cosine")
    assert not router.training
    assert router.config.base_encoder is None, "a local folder is no Hub id"
    assert router.tokenizer is not None
    inputs = batch_of(router, tokenizer)
    with torch.no_grad():
        reference = AutoModel.from_pretrained(tmp_path)
        assert router.encoder.config._attn_implementation == reference.config._attn_implementation
        states = reference(**inputs).last_hidden_state
        torch.testing.assert_close(router.encoder(**inputs).last_hidden_state, states)
    assert torch.isfinite(router.classifier.log_temperature)
    assert router.classifier.log_temperature.exp().item() == pytest.approx(0.1)


def test_gradient_checkpointing_gives_the_same_gradients(make_router, tokenizer, encoder):
    plain = make_router(encoder, head_dropout=0.0)
    for config in (plain.config.encoder_config,):
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if hasattr(config, name):
                setattr(config, name, 0.0)
    plain = ZooterForRouting(plain.config).train()
    checkpointed = copy.deepcopy(plain)
    # Renamed after transformers 5.20; the old name still works, with a warning.
    getattr(checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable)()
    labels = torch.full((len(QUERIES), 3), 1 / 3)
    for router in (plain, checkpointed):
        router(**batch_of(router, tokenizer), labels=labels).loss.backward()
    for (name, left), (_, right) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_attention_implementations_agree(make_router, tokenizer, encoder, tmp_path):
    router = make_router(encoder)
    router.save_pretrained(tmp_path)
    eager = AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert eager.encoder.config._attn_implementation == "eager"
    inputs = batch_of(router, tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(eager(**inputs).logits, router(**inputs).logits, atol=1e-4, rtol=1e-3)
    if encoder != "deberta-v2":  # which has no other implementation
        sdpa = AutoModel.from_pretrained(tmp_path, attn_implementation="sdpa")
        assert sdpa.encoder.config._attn_implementation == "sdpa"


def test_dtype_device_map_and_shards(make_router, tokenizer, encoder, tmp_path):
    router = make_router(encoder)
    router.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = AutoModel.from_pretrained(tmp_path, device_map="cpu")
    inputs = batch_of(router, tokenizer)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, router(**inputs).logits)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert half.probabilities(half(**inputs).logits).dtype == torch.float32


def test_return_dict_false_gives_a_tuple(make_router, tokenizer, encoder):
    router = make_router(encoder)
    with torch.no_grad():
        logits, embedding = router(**batch_of(router, tokenizer), return_dict=False)
    assert logits.shape == (5, 3)
    assert embedding.shape == (5, 16)


def test_a_router_needs_encoder_and_experts(encoder, tokenizer):
    with pytest.raises(ValueError, match="from_encoder"):
        ZooterForRouting(ZooterConfig(experts=["a", "b"]))
    with pytest.raises(ValueError, match="at least one expert"):
        ZooterForRouting(ZooterConfig(encoder_config=ENCODERS[encoder](len(tokenizer))))


def test_mistakes_in_from_encoder_are_named(encoder, make_router):
    pretrained = make_router(encoder).encoder
    with pytest.raises(TypeError, match="haed"):
        ZooterForRouting.from_encoder(pretrained, experts=["a", "b"], haed="mlp")
    with pytest.raises(TypeError, match="list of experts"):
        ZooterForRouting.from_encoder(pretrained, experts="ab")
    with pytest.raises(OSError, match="no encoder folder ./nowhere"):
        ZooterForRouting.from_encoder("./nowhere", experts=["a", "b"])


def test_a_query_embedding_takes_the_place_of_the_query(encoder, make_router, tokenizer):
    router = make_router(encoder, head="mlp")
    inputs = tokenizer(QUERIES, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        full = router(**inputs)
        torch.testing.assert_close(router(query_embedding=full.query_embedding).logits, full.logits)
        with pytest.raises(ValueError, match="not both"):
            router(**inputs, query_embedding=full.query_embedding)
