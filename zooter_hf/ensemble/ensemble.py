"""A router and its experts, as one model."""

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from zooter_hf.ensemble.breaker import CircuitBreaker
from zooter_hf.ensemble.comparison import Compared, generate_with_all, rank_by_reward, vote
from zooter_hf.ensemble.conversations import Conversations, stay_with
from zooter_hf.ensemble.dispatch import Dispatcher
from zooter_hf.ensemble.members import Experts, gather, read_experts
from zooter_hf.ensemble.plan import Plan, aggregate_plan
from zooter_hf.ensemble.pool import ExpertPool
from zooter_hf.ensemble.reply import EnsembleError, Reply
from zooter_hf.ensemble.settings import EnsembleSettings, check_fallback, with_generation
from zooter_hf.ensemble.storage import check_publishable, load_stored, write_ensemble
from zooter_hf.ensemble.streaming import AsyncReplyStream, CompleteReplyStream, ReplyStream
from zooter_hf.experts import Expert, GenerationSettings, Loadable, Query
from zooter_hf.modeling import ZooterForRouting, ZooterRoutingPipeline, is_one_query, unwrap_query
from zooter_hf.routing import Decision, Routed, RoutingPolicy, decide, make_policy


class ZooterEnsemble(Loadable):
    """A router with experts that answer: a query costs one small forward pass and one expert.

    Threads may share an ensemble. A context manager; leaving it frees the experts.

    Args:
        router: The router, with its tokenizer. Its config takes over the specs of `experts`.
        experts: Experts in place of the router's own of the same name, or besides: specs, [`Expert`] objects, a
            mapping of names to them, or a YAML or JSON file. An expert that the router does not know answers where it
            is asked for by name, or where all others fail.
        on_missing: What to do about experts of the router that cannot answer, since their spec has no `backend`:
            `"error"`, or `"skip"` to never choose them.
        device: Where the router runs; the accelerator of the machine by default, if it has one.
        max_loaded: The most models in memory; see [`ExpertPool`].
        max_bytes: The most memory that models may take together, in bytes; see [`ExpertPool`].
        reward_model: A [`~zooter_hf.rewards.teachers.Teacher`] that chooses between the answers of several experts,
            for a policy that asks it to.
        max_threads: The most calls of `agenerate` and streams of `astream` that are worked on at a time.
        settings: How the ensemble behaves.
        **changes: Fields of [`EnsembleSettings`], in place of those of `settings`.

    Raises:
        ValueError: If an expert cannot answer, or an argument is out of its range.
        TypeError: If something given is no expert, or there is no such setting.
    """

    def __init__(
        self,
        router: ZooterForRouting,
        experts: Experts | None = None,
        *,
        on_missing: str = "error",
        device: Any = None,
        max_loaded: int | None = None,
        max_bytes: int | None = None,
        reward_model: Any = None,
        max_threads: int = 64,
        settings: EnsembleSettings | None = None,
        **changes: Any,
    ):
        self.settings = (settings or EnsembleSettings()).changed(changes)
        quick = self.settings.fallback == "next"
        self.members = gather(router.config.experts, experts, on_missing=on_missing, quick=quick)
        router.config.experts = list(self.members.specs)
        self.router = router
        self._pool = ExpertPool(self.members.experts, max_loaded=max_loaded, max_bytes=max_bytes)
        self._breaker = CircuitBreaker(self.settings.cooldown_after, self.settings.cooldown)
        self._dispatcher = Dispatcher(self._pool, self._breaker)
        self._conversations = Conversations()
        self._routing = ZooterRoutingPipeline(model=router, device=device)
        self._routing_lock = threading.Lock()  # tokenizers have a state
        self._reward_model = reward_model
        self._max_threads = max_threads
        self._policy_of(None)  # for its errors

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        experts: Experts | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        **arguments: Any,
    ) -> "ZooterEnsemble":
        """Loads a router with the experts and the settings that were saved with it. No expert is loaded yet.

        Args:
            pretrained_model_name_or_path: A folder, or a repository on the Hub.
            experts: Experts in place of those saved under the same name, or besides; see [`ZooterEnsemble`].
            revision: Branch, tag or commit of the repository.
            token: For a private repository.
            cache_dir: Where it is kept.
            **arguments: Further arguments of [`ZooterEnsemble`]; settings go before those that were saved.

        Raises:
            OSError: If there is no such router.
            ValueError: If an expert cannot answer, an argument is out of its range, or what was saved cannot be right.
            TypeError: If something given is no expert, or there is no such setting.
        """
        name = os.fspath(pretrained_model_name_or_path)
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
        router = ZooterForRouting.from_pretrained(name, **hub)
        settings, added = load_stored(name, **hub)
        members = {**{spec.name: spec for spec in added}, **read_experts(experts)}
        return cls(router, members, **{"settings": settings, **arguments})

    @property
    def experts(self) -> dict[str, Expert]:
        """The experts that can answer, by name."""
        return dict(self._pool.experts)

    @property
    def loaded(self) -> list[str]:
        """Names of the experts in memory, the least recently used first."""
        return self._pool.loaded

    def preload(self, names: Iterable[str] | None = None):
        """Loads experts before they are needed, all by default.

        Args:
            names: Their names.

        Raises:
            ExpertError: If one cannot be loaded; names it.
            ValueError: If there is no such expert, or they do not fit into memory together.
        """
        names = list(names) if names is not None else None
        for name in names or ():
            self._check_expert(name)
        self._pool.preload(names)

    def load(self):
        """Loads all experts; see `preload`."""
        self.preload()

    def close(self):
        """Frees the experts that are not in use. The ensemble may be used again, and loads again."""
        self._pool.close()
        if "_threads" in self.__dict__:
            self.__dict__.pop("_threads").shutdown(wait=False)

    def generate(
        self,
        queries: Query | Sequence[Query],
        *,
        policy: RoutingPolicy | Mapping[str, Any] | str | None = None,
        expert: str | None = None,
        sticky: bool | None = None,
        conversation: str | Sequence[str | None] | None = None,
        fallback: str | None = None,
        **generation: Any,
    ) -> Reply | list[Reply]:
        """Answers a query, or many.

        Many are routed in one batch and answered in groups, one for each expert; adapters on one base form a common
        group. Local experts answer one after the other, endpoints meanwhile.

        Args:
            queries: A string, a chat, or a list of them. An expert that takes images or calls of tools gets them as
                they are; the router reads the text.
            policy: How to choose: a policy, its name, or settings that change those of the ensemble's policy, which
                holds by default.
            expert: Name of the expert that is to answer, whatever the router says; no other takes its place.
            sticky: Whether a conversation stays with the expert that answered last in it, unless another leads by
                `sticky_margin`; as in the settings by default.
            conversation: Name of the conversation, or of that of each query. Without one a chat continues that whose
                messages and reply it begins with.
            fallback: `"next"` or `"none"`; as in the settings by default.
            **generation: Fields of [`GenerationSettings`]: `max_new_tokens`, `temperature`, `top_p`, `seed`, `stop`,
                `system_prompt`.

        Returns:
            The reply; for a list the replies, in its order. In a list, the reply to a query that no expert could
            answer has an `error`.

        Raises:
            EnsembleError: If it is one query, and no expert could answer it.
            ValueError: If a query is empty, or an argument is out of its range.
            TypeError: If a query is no text and no chat, or there is no such generation setting.
        """
        settings = with_generation(self.settings.generation, generation)
        one = is_one_query(queries)
        queries = [queries] if one else list(queries)
        names = self._conversation_names(conversation, len(queries), one)
        began = time.perf_counter()
        routed = self._route(queries, policy, expert, sticky, names)
        seconds_routing = (time.perf_counter() - began) / max(len(queries), 1)
        plans = [
            self._plan(query, each, fallback, expert is not None) for each, query in zip(routed, queries, strict=True)
        ]
        self._answer(plans, settings)
        replies = [self._reply(plan, seconds_routing) for plan in plans]
        for reply, plan, name in zip(replies, plans, names, strict=True):
            self._remember(plan.query, reply, name)
        if one and replies[0].error is not None:
            raise EnsembleError(replies[0].error, replies[0].decision)
        return replies[0] if one else replies

    def stream(
        self,
        query: Query,
        *,
        policy: RoutingPolicy | Mapping[str, Any] | str | None = None,
        expert: str | None = None,
        sticky: bool | None = None,
        conversation: str | None = None,
        fallback: str | None = None,
        **generation: Any,
    ) -> ReplyStream:
        """Answers one query in pieces, as they come. The first piece is waited for when it is asked for.

        Args:
            query: A string or a chat.
            policy: As of [`~ZooterEnsemble.generate`], like the other arguments.
            expert: See above.
            sticky: See above.
            conversation: See above.
            fallback: See above.
            **generation: See above.

        Where several experts answer together, their common answer comes in one piece.

        Returns:
            An iterator of texts, with the `decision`, the `expert`, and at the end the whole `reply`. It raises an
            [`EnsembleError`] if no expert can answer, or the answer breaks off: what comes never goes on with the
            text of another expert.

        Raises:
            ValueError: As of [`~ZooterEnsemble.generate`].
            TypeError: As of [`~ZooterEnsemble.generate`].
        """
        settings = with_generation(self.settings.generation, generation)
        if not is_one_query(query):
            raise TypeError("`stream` answers one query, a string or a chat. Give several to `generate`.")
        (name,) = self._conversation_names(conversation, 1, True)
        began = time.perf_counter()
        (routed,) = self._route([query], policy, expert, sticky, [name])
        seconds_routing = time.perf_counter() - began

        plan = self._plan(query, routed, fallback, expert is not None)

        def finish() -> Reply:
            reply = self._reply(plan, seconds_routing)
            self._remember(plan.query, reply, name)
            return reply

        def answer_together() -> Reply:
            self._answer([plan], settings)
            return finish()

        if len(plan.jobs) != 1:
            return CompleteReplyStream(routed.decision, answer_together)
        return ReplyStream(plan.jobs[0], routed.decision, self._dispatcher, settings, finish)

    async def agenerate(self, queries: Query | Sequence[Query], **arguments: Any) -> Reply | list[Reply]:
        """Answers a query, or many, without blocking the event loop; see [`~ZooterEnsemble.generate`].

        At most `max_threads` calls are worked on at a time. A call that is cancelled while an expert answers lets it
        come to its end.
        """
        call = partial(self.generate, queries, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def astream(self, query: Query, **arguments: Any) -> AsyncReplyStream:
        """Answers one query in pieces without blocking the event loop; see [`~ZooterEnsemble.stream`].

        Returns:
            An asynchronous iterator of texts; errors come with the first piece.
        """
        return AsyncReplyStream(partial(self.stream, query, **arguments), self._threads)

    def __call__(
        self, queries: Query | Sequence[Query], *, return_full_text: bool = True, **arguments: Any
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Answers in the form of transformers' [`~transformers.TextGenerationPipeline`].

        Args:
            queries: A string, a chat, or a list of them.
            return_full_text: Whether the query stands before the answer: as text, or as the messages of the chat.
            **arguments: See [`~ZooterEnsemble.generate`].

        Returns:
            For one query a list of one `{"generated_text": ..., "expert": ...}`, for several a list of such lists.

        Raises:
            EnsembleError: If no expert could answer one of them.
        """
        one = is_one_query(queries)
        queries = [queries] if one else list(queries)
        replies = self.generate(queries, **arguments)
        for reply in replies:
            if reply.error is not None:
                raise EnsembleError(reply.error, reply.decision)
        records = [
            [{"generated_text": _full(query, reply.text) if return_full_text else reply.text, "expert": reply.expert}]
            for query, reply in zip(queries, replies, strict=True)
        ]
        return records[0] if one else records

    def reward_model_ranking(
        self, queries: Query | Sequence[Query], reward_model: Any, **generation: Any
    ) -> Compared | list[Compared]:
        """Answers with all experts and keeps the answer that a reward model likes best (the paper, section 4.1).

        The router is not asked. It is what routing is measured against: N generations and N scores for one answer.

        Args:
            queries: A string, a chat, or a list of them.
            reward_model: A [`~zooter_hf.rewards.teachers.Teacher`], such as `RewardModel("folder or Hub id")`.
            **generation: See [`~ZooterEnsemble.generate`].
        """
        return self._compare(queries, generation, partial(rank_by_reward, teacher=reward_model))

    def voting(
        self, queries: Query | Sequence[Query], mode: str = "exact", **generation: Any
    ) -> Compared | list[Compared]:
        """Answers with all experts and keeps the answer that most of them give.

        Args:
            queries: A string, a chat, or a list of them.
            mode: What of the answers is compared: `"exact"`, `"numeric"` or `"choice"`; see
                [`~zooter_hf.rewards.teachers.Verifier`].
            **generation: See [`~ZooterEnsemble.generate`].
        """
        return self._compare(queries, generation, partial(vote, mode=mode))

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any):
        """Saves the router with the experts' specs, and how the ensemble behaves; no model of an expert.

        Args:
            save_directory: Folder to write to; made if it is not there.
            **kwargs: See [`~ZooterForRouting.save_pretrained`].
        """
        self.router.save_pretrained(save_directory, **kwargs)
        write_ensemble(Path(save_directory), self.settings, self.members.added)

    def push_to_hub(self, repo_id: str, **kwargs: Any):
        """Uploads what [`~ZooterEnsemble.save_pretrained`] saves, in one commit.

        Args:
            repo_id: The repository; made if it is not there.
            **kwargs: See [`~ZooterForRouting.push_to_hub`].

        Returns:
            `huggingface_hub.CommitInfo`: Address and hash of the commit.

        Raises:
            ValueError: If an expert is a folder on this machine, which nobody else could load.
        """
        check_publishable((*self.members.specs, *self.members.added))

        def add(router: ZooterForRouting, directory: str, repo_id: str, **_: Any):
            write_ensemble(Path(directory), self.settings, self.members.added)

        hooks = self.router._push_hooks
        self.router._push_hooks = [*hooks, add]  # of this object; the class keeps its own
        try:
            return self.router.push_to_hub(repo_id, **kwargs)
        finally:
            del self.router._push_hooks

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._max_threads, thread_name_prefix="ensemble")

    def _route(
        self,
        queries: Sequence[Query],
        policy: RoutingPolicy | str | None,
        expert: str | None,
        sticky: bool | None,
        conversations: Sequence[str | None],
    ) -> list[Routed]:
        """Decides about queries, in one batch, with all that a decision depends on besides the router."""
        if expert is not None:
            self._check_expert(expert)
        policy = self._policy_of(policy)
        with self._routing_lock:
            routed = list(decide(self._routing, queries, policy=policy, available=set(self._pool.experts)))
        sticky = self.settings.sticky if sticky is None else sticky
        added = tuple(spec.name for spec in self.members.added if spec.name in self._pool.experts)

        def complete(decision: Decision, query: Query, conversation: str | None) -> Decision:
            decision = replace(decision, alternatives=(*decision.alternatives, *added))
            if expert is not None:
                return decision.choosing(expert, "asked for by name", policy="given")
            if sticky:
                current = self._conversations.expert_of(unwrap_query(query), conversation)
                decision = stay_with(decision, current, self.settings.sticky_margin)
            return decision

        return [
            replace(each, decision=complete(each.decision, query, conversation))
            for each, query, conversation in zip(routed, queries, conversations, strict=True)
        ]

    def _policy_of(self, policy: RoutingPolicy | Mapping[str, Any] | str | None) -> RoutingPolicy:
        """Returns the policy of a call: what is given goes before the settings, and these before the router's own."""
        own = make_policy(self.settings.policy, self.router.config.policy)
        policy = make_policy(policy, own)
        policy.check(self.router.config.experts)
        if getattr(policy, "aggregation", None) == "reward_model" and self._reward_model is None:
            raise ValueError(
                "The policy has a reward model choose between answers. Give one, "
                "`ZooterEnsemble(..., reward_model=...)`, or another `aggregation`."
            )
        return policy

    def _plan(self, query: Query, routed: Routed, fallback: str | None, by_name: bool) -> Plan:
        fallback = self.settings.fallback if fallback is None else check_fallback(fallback)
        most = self.settings.max_fallbacks if fallback == "next" and not by_name else 0
        return Plan.of(unwrap_query(query), routed, most)

    def _answer(self, plans: Sequence[Plan], settings: GenerationSettings):
        """Has experts answer, and others in place of sets of which no member could."""
        self._dispatcher.answer([job for plan in plans for job in plan.jobs], settings)
        if others := [job for plan in plans if (job := plan.replace_members())]:
            self._dispatcher.answer(others, settings)

    def _reply(self, plan: Plan, seconds_routing: float) -> Reply:
        return plan.reply(seconds_routing, partial(aggregate_plan, reward_model=self._reward_model))

    def _remember(self, query: Query, reply: Reply, conversation: str | None):
        if reply.text is not None:
            self._conversations.remember(query, reply.text, reply.expert, conversation)

    def _compare(self, queries: Query | Sequence[Query], generation: dict[str, Any], choose: Any):
        settings = with_generation(self.settings.generation, generation)
        one = is_one_query(queries)
        queries = [unwrap_query(query) for query in ([queries] if one else queries)]
        compared = choose(generate_with_all(self._dispatcher, queries, settings))
        return compared[0] if one else compared

    def _conversation_names(self, given: Any, count: int, one: bool) -> Sequence[str | None]:
        names = [given] * count if given is None or one else given
        if isinstance(names, str) or len(names) != count:
            raise ValueError(f"`conversation` must name the conversation of each of the {count} queries, or be None.")
        if wrong := [name for name in names if name is not None and not isinstance(name, str)]:
            raise ValueError(f"The name of a conversation is a string, got {wrong[0]!r}.")
        return names

    def _check_expert(self, name: str):
        if name not in self._pool.experts:
            raise ValueError(f"There is no expert {name!r} that can answer. There are {sorted(self._pool.experts)}.")


def _full(query: Query, text: str) -> Any:
    query = unwrap_query(query)
    return query + text if isinstance(query, str) else [*query, {"role": "assistant", "content": text}]
