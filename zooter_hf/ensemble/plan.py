"""What a decision asks of whom, and what becomes of the answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional

from zooter_hf.ensemble.comparison import Compared, rank_by_reward, vote
from zooter_hf.ensemble.dispatch import Job, describe_failures
from zooter_hf.ensemble.reply import Reply
from zooter_hf.experts import Query
from zooter_hf.routing import Routed


if TYPE_CHECKING:
    from zooter_hf.rewards.teachers import Teacher


@dataclass
class Plan:
    """A query, and the jobs that its decision makes of it.

    One job as a rule, one for each member of a set, none if nobody is to answer.

    Args:
        query: The query.
        routed: The decision.
        jobs: The jobs, in the order of the members.
        max_fallbacks: How many experts may be asked in place of those that fail.
    """

    query: Query
    routed: Routed
    jobs: list[Job]
    max_fallbacks: int

    @classmethod
    def of(cls, query: Query, routed: Routed, max_fallbacks: int) -> "Plan":
        """Plans what a decision says."""
        decision = routed.decision
        if decision.refused:
            return cls(query, routed, [], max_fallbacks)
        if decision.asks_several:
            return cls(query, routed, [Job(query, (name,)) for name in decision.members], max_fallbacks)
        order = (decision.expert, *decision.alternatives)
        return cls(query, routed, [Job(query, order, max_fallbacks)], max_fallbacks)

    def replace_members(self) -> Job | None:
        """Returns a job for the experts outside of a set of which no member answered; `None` if there is no need."""
        decision = self.routed.decision
        others = tuple(name for name in decision.alternatives if name not in decision.members)
        if len(self.jobs) < 2 or any(job.answer for job in self.jobs) or not others or not self.max_fallbacks:
            return None
        job = Job(self.query, others, self.max_fallbacks - 1)
        self.jobs.append(job)
        return job

    def reply(self, seconds_routing: float, aggregate: Callable[["Plan"], Compared]) -> Reply:
        """Makes a reply of the answers.

        Args:
            seconds_routing: Seconds that routing took.
            aggregate: Makes one answer of those of several members.
        """
        decision = self.routed.decision
        tried = tuple(fallback for job in self.jobs for fallback in job.tried)
        facts = {
            "decision": replace(decision, fallbacks=tried),
            "seconds_routing": seconds_routing,
            "seconds_generating": max((job.ended - job.began for job in self.jobs), default=0.0),
            "query_tokens": self.routed.query_tokens,
            "read_tokens": self.routed.read_tokens,
        }
        if not self.jobs:
            return Reply(None, None, **facts, error=f"Nobody was asked: {decision.reason}.")
        if len(self.jobs) == 1:
            job = self.jobs[0]
            return Reply(job.outcome.text, job.expert, usage=job.outcome.usage, error=job.outcome.error, **facts)
        kept = aggregate(self)
        facts["decision"] = replace(facts["decision"], reason=f"{decision.reason}; {kept.reason}")
        error = None if kept.text is not None else describe_failures(tried)
        return Reply(kept.text, kept.expert, usage=kept.usage, answers=kept.answers, error=error, **facts)


def aggregate_plan(plan: Plan, reward_model: Optional["Teacher"]) -> Compared:
    """Makes one answer of those of several experts, as the decision says."""
    decision = plan.routed.decision
    answers = {job.expert or job.order[0]: job.outcome for job in plan.jobs}
    answered = [(plan.query, answers)]
    if decision.aggregation == "reward_model":
        return rank_by_reward(answered, reward_model)[0]
    # Who took the place of members that failed has no weight, and votes alone.
    weights = None if decision.weights is None else [{name: decision.weights.get(name, 0.0) for name in answers}]
    return vote(answered, decision.compare or "exact", weights)[0]
