"""What policies choose, worked by hand, and what they refuse."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zooter_hf import Decision, ExpertSpec, make_policy
from zooter_hf.routing import ArgmaxPolicy, CostAwarePolicy, QueryFacts, RoutingPolicy, SetPolicy, ThresholdPolicy


EXPERTS = [
    ExpertSpec("small", input_price=1.0, output_price=1.0, context_length=1000),
    ExpertSpec("medium", input_price=4.0, output_price=4.0, metadata={"features": ["tools"]}),
    ExpertSpec("large", input_price=16.0, output_price=16.0, metadata={"features": ["tools", "images"]}),
]
SHARES = {"large": 0.5, "medium": 0.3, "small": 0.2}
REWARDS = {"large": 0.9, "medium": 0.88, "small": 0.5}


def decide(policy=None, *, shares=SHARES, rewards=None, experts=EXPERTS, available=None, **facts):
    ranking = [
        {"label": name, "score": share, **({"reward": rewards[name]} if rewards else {})}
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    facts = QueryFacts(**{"tokens": 744, **facts})
    return Decision.from_ranking(ranking, experts, router="r", policy=policy, available=available, query=facts)


class TestWhoMayAnswer:
    @pytest.mark.parametrize(
        ("settings", "expert", "out"),
        [
            ({}, "large", {}),
            ({"exclude": ["large"]}, "medium", {"large": "excluded"}),
            ({"include": ["small"]}, "small", {"large": "not included", "medium": "not included"}),
            ({"require": ["images"]}, "large", {"medium": "lacks images", "small": "lacks images"}),
            ({"require": ["tools"], "exclude": ["large"]}, "medium", {"large": "excluded", "small": "lacks tools"}),
            ({"require": ["sound"], "default": "small"}, "small", None),
            ({"include": ["small"], "answer_tokens": 256}, "small", None),  # 744 + 256 tokens just fit
        ],
    )
    def test_constraints(self, settings, expert, out):
        decision = decide({"name": "argmax", **settings})
        assert decision.expert == expert
        ruled_out = {each.name: each.out for each in decision.ranking if each.out}
        if out is not None:
            assert ruled_out == out
        assert not set(decision.alternatives) & set(ruled_out), "what may not answer may not take its place either"

    def test_a_context_that_is_too_short(self):
        decision = decide(
            {"include": ["small", "medium"], "answer_tokens": 257}, shares={"small": 0.9, "medium": 0.1, "large": 0}
        )
        assert decision.expert == "medium"
        assert [each.out for each in decision.ranking if each.name == "small"] == [
            "takes 1000 tokens, 1001 are needed"
        ]

    def test_lengths_of_answers_by_expert(self):
        decision = decide({"name": "argmax", "answer_tokens": {"small": 9, "large": 1256}})
        prices = {each.name: each.price for each in decision.ranking}
        assert prices == pytest.approx({"small": 753e-6, "medium": 4 * 1000e-6, "large": 16 * 2000e-6})
        with pytest.raises(ValueError, match="answer_tokens"):
            make_policy({"answer_tokens": {"small": -1}})

    def test_nobody_is_left(self):
        with pytest.raises(ValueError, match="no expert qualifies.*large: lacks sound"):
            decide({"require": ["sound"]})
        assert "default expert" in decide({"require": ["sound"], "default": "medium"}).reason
        with pytest.raises(ValueError, match="available"):
            decide(available=["other"])

    def test_a_default_that_cannot_be_asked_does_not_answer(self):
        with pytest.raises(ValueError, match="no expert qualifies"):
            decide({"require": ["sound"], "default": "small"}, available=["large", "medium"])

    def test_queries_unlike_the_training(self):
        policy = ArgmaxPolicy(default="small", max_distance=0.4)
        assert decide(policy, distance=0.4).expert == "large"
        far = decide(policy, distance=0.41, near=("math",))
        assert far.expert == "small" and "unlike any training query" in far.reason
        assert far.distance == 0.41 and far.near == ("math",)
        assert far.alternatives == ("large", "medium")
        with pytest.raises(ValueError, match="centroids"):
            decide(policy)


class TestCostAware:
    # With 744 + 256 tokens: small $0.001, medium $0.004, large $0.016.
    @pytest.mark.parametrize(
        ("settings", "expert"),
        [
            ({}, "large"),
            ({"tolerance": 0.01}, "large"),
            ({"tolerance": 0.02}, "medium"),
            ({"tolerance": 0.4}, "small"),
            ({"cost_weight": 1.6}, "large"),  # 0.02 of reward for $0.012: from 1.67 on medium is the better bargain
            ({"cost_weight": 1.7}, "medium"),
            ({"cost_weight": 126.0}, "medium"),  # 0.38 for $0.003: from 126.7 on small
            ({"cost_weight": 127.0}, "small"),
            ({"cost_weight": 1.7, "costs": {"large": 0.004}}, "large"),
            ({"cost_weight": 1.7, "quality": "probability"}, "large"),
            ({"tolerance": 0.02, "exclude": ["large"]}, "medium"),
        ],
    )
    def test_choices(self, settings, expert):
        decision = decide({"name": "cost_aware", **settings}, rewards=REWARDS)
        assert decision.expert == expert
        assert {decision.expert, *decision.alternatives} == set(SHARES) - set(settings.get("exclude", ()))

    def test_the_reason_says_what_was_saved(self):
        assert "within 0.02 of the best" in (reason := decide(CostAwarePolicy(tolerance=0.02), rewards=REWARDS).reason)
        assert "$0.004 instead of $0.016" in reason

    def test_without_predicted_rewards_it_is_the_probability(self):
        assert decide(CostAwarePolicy(tolerance=0.2)).expert == "medium"
        with pytest.raises(ValueError, match="does not predict rewards"):
            decide(CostAwarePolicy(quality="reward"))

    def test_missing_prices(self):
        experts = [*EXPERTS[:2], ExpertSpec("large")]
        with pytest.raises(ValueError, match=r"\['large'\].*input_price"):
            decide(CostAwarePolicy(cost_weight=1.0), experts=experts)
        assert decide(CostAwarePolicy(cost_weight=1.0, exclude=("large",)), experts=experts).expert == "medium"
        assert decide(CostAwarePolicy(cost_weight=1.0, costs={"large": 0.0}), experts=experts).expert == "large"

    @given(
        st.lists(st.floats(0, 1), min_size=3, max_size=3),
        st.floats(0, 1e4),
        st.floats(0, 1e4),
    )
    def test_more_weight_never_costs_more(self, rewards, first, second):
        rewards = dict(zip(SHARES, rewards, strict=True))

        def price(weight):
            decision = decide(CostAwarePolicy(cost_weight=weight), rewards=rewards)
            return next(each.price for each in decision.ranking if each.name == decision.expert)

        low, high = sorted((first, second))
        assert price(high) <= price(low)


class TestThreshold:
    @pytest.mark.parametrize(
        ("threshold", "expert"), [(0.0, "large"), (0.71, "large"), (0.72, "small"), (1.0, "small")]
    )
    def test_the_share_of_both_decides(self, threshold, expert):
        # 0.5 / (0.5 + 0.2) = 0.714
        decision = decide({"name": "threshold", "strong": "large", "weak": "small", "threshold": threshold})
        assert decision.expert == expert
        assert set(decision.alternatives[:1]) == {"large", "small"} - {expert}
        assert "71%" in decision.reason

    def test_one_of_the_two_may_not_answer(self):
        policy = ThresholdPolicy(strong="large", weak="small", threshold=0.0, exclude=("large",))
        assert decide(policy).expert == "small"
        with pytest.raises(ValueError, match="Neither"):
            decide(policy.changed({"exclude": ("large", "small")}))


class TestSets:
    REWARDS = {"large": 0.9, "medium": 0.6, "small": 0.05}

    @pytest.mark.parametrize(
        ("threshold", "members"),
        [(0.05, ()), (0.11, ("large",)), (0.41, ("large", "medium")), (0.96, ("large", "medium", "small"))],
    )
    def test_members_are_those_within_the_threshold(self, threshold, members):
        decision = decide(SetPolicy(threshold=threshold, kind="complement"), rewards=self.REWARDS)
        assert decision.members == members
        assert decision.expert == "large"
        assert decision.abstained == (not members) and not decision.refused
        assert decision.asks_several == (len(members) > 1)

    def test_a_threshold_for_queries_of_a_kind(self):
        policy = SetPolicy(threshold=0.41, kind="complement", group_thresholds={"math": 0.11, "code": 0.96})
        sizes = {
            near: len(decide(policy, rewards=self.REWARDS, near=near).members)
            for near in (("math",), ("code",), ("prose", "math"), ("prose",), ())
        }
        assert sizes == {("math",): 1, ("code",): 3, ("prose", "math"): 1, ("prose",): 2, (): 2}

    def test_votes_are_weighed_by_the_chances(self):
        policy = SetPolicy(threshold=0.96, kind="complement", sharpness=2.0)
        decision = decide(policy, rewards=self.REWARDS)
        assert decision.weights == pytest.approx({"large": 1.0, "medium": 4 / 9, "small": 1 / 324})
        assert decide(policy.changed({"sharpness": 0.0}), rewards=self.REWARDS).weights == dict.fromkeys(SHARES, 1.0)
        assert decide(policy.changed({"aggregation": "majority"}), rewards=self.REWARDS).weights is None
        nothing = decide(policy.changed({"abstain": "all", "threshold": -1.0}), rewards=dict.fromkeys(SHARES, 0.0))
        assert nothing.weights == dict.fromkeys(SHARES, 0.0), "which a vote takes for equal weights"

    def test_what_becomes_of_an_abstention(self):
        policy = SetPolicy(threshold=0.05, kind="complement")
        assert decide(policy.changed({"abstain": "all"}), rewards=self.REWARDS).members == ("large", "medium", "small")
        assert decide(policy.changed({"abstain": "refuse"}), rewards=self.REWARDS).refused
        assert decide(policy.changed({"default": "small"}), rewards=self.REWARDS).expert == "small"

    def test_ties_fall_the_same_way_every_time(self):
        level = dict.fromkeys(SHARES, 0.5)
        policy = SetPolicy(threshold=0.5 - 5e-7, seed=3, kind="complement")
        first = {key: decide(policy, rewards=level, key=key).members for key in "abcdefghijklmnop"}
        assert {key: decide(policy, rewards=level, key=key).members for key in first} == first
        assert len(set(first.values())) > 3, "chance decides, by the query"
        others = {key: decide(policy, rewards=level, key=key, available=["large", "small"]).members for key in first}
        for key, members in first.items():
            assert set(others[key]) == set(members) - {"medium"}, "whoever else there is"


class TestNaming:
    def test_round_trip(self):
        for policy in (
            ArgmaxPolicy(exclude=("small",), default="large", max_distance=0.5),
            CostAwarePolicy(tolerance=0.02, costs={"small": 0.1}),
            ThresholdPolicy(strong="large", weak="small"),
            SetPolicy(threshold=0.3, delta=0.1, abstain="refuse"),
        ):
            assert make_policy(json.loads(json.dumps(policy.to_dict()))) == policy
            assert policy.to_dict()["name"] == policy.name

    def test_settings_without_a_name_change_what_holds(self):
        base = {"name": "cost_aware", "tolerance": 0.1}
        assert make_policy({"exclude": ["small"]}, base) == CostAwarePolicy(tolerance=0.1, exclude=("small",))
        assert make_policy(None, base) == CostAwarePolicy(tolerance=0.1)
        assert make_policy("argmax", base) == ArgmaxPolicy() == make_policy(None)

    @pytest.mark.parametrize(
        ("policy", "error", "message"),
        [
            ("loudest", ValueError, "loudest.*argmax"),
            (3, TypeError, "int"),
            ({"name": "argmax", "weight": 1}, TypeError, "weight.*exclude"),
            ({"exclude": "small"}, TypeError, "list of names"),
            ({"include": []}, ValueError, "empty"),
            ({"include": ["a"], "exclude": ["a"]}, ValueError, "both"),
            ({"exclude": ["a"], "default": "a"}, ValueError, "excluded"),
            ({"max_distance": 0.3}, ValueError, "default"),
            ({"max_distance": 3, "default": "a"}, ValueError, "0 to 2"),
            ({"answer_tokens": -1}, ValueError, "answer_tokens"),
            ({"name": "cost_aware", "cost_weight": -1}, ValueError, "cost_weight"),
            ({"name": "cost_aware", "cost_weight": float("nan")}, ValueError, "cost_weight"),
            ({"name": "cost_aware", "cost_weight": 1, "tolerance": 1}, ValueError, "one of them"),
            ({"name": "cost_aware", "costs": {"a": -1}}, ValueError, "'a'"),
            ({"name": "cost_aware", "quality": "taste"}, ValueError, "taste"),
            ({"name": "threshold"}, ValueError, "two experts"),
            ({"name": "threshold", "strong": "a", "weak": "b", "threshold": 2}, ValueError, "between 0 and 1"),
            ({"name": "set", "alpha": 0}, ValueError, "alpha"),
            ({"name": "set", "delta": 1.0}, ValueError, "delta"),
            ({"name": "set", "group_thresholds": {"math": "low"}}, ValueError, "group_thresholds"),
            ({"name": "set", "abstain": "sing"}, ValueError, "sing"),
            ({"name": "set", "aggregation": "sing"}, ValueError, "sing"),
            ({"name": "set", "sharpness": -1.0}, ValueError, "`sharpness` must be a number of 0 or more, got -1.0"),
        ],
    )
    def test_mistakes(self, policy, error, message):
        with pytest.raises(error, match=message):
            make_policy(policy)

    def test_a_policy_for_other_experts(self):
        with pytest.raises(ValueError, match=r"\['giant'\].*small"):
            make_policy({"exclude": ["giant"]}).check(EXPERTS)
        with pytest.raises(ValueError, match="all experts"):
            make_policy({"exclude": ["small", "medium", "large"]}).check(EXPERTS)

    def test_a_policy_of_ones_own(self):
        class Cheapest(RoutingPolicy):
            name = "cheapest"

            def choose_between(self, candidates, query):
                from zooter_hf.routing import Choice

                order = sorted(candidates, key=lambda expert: expert.price)
                return Choice(tuple(expert.name for expert in order), "cheapest")

        assert decide(Cheapest(exclude=("small",))).expert == "medium"
