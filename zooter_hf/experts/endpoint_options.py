"""What the spec of an endpoint says besides its model and address."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from zooter_hf.experts.retry import MAX_RETRY_AFTER
from zooter_hf.modeling import ExpertSpec


# The HTTP client of huggingface_hub keeps no more connections; further requests would wait, and time out.
MAX_CONCURRENCY = 100
OWN_FIELDS = ("messages", "model", "n", "stream", "stream_options")


@dataclass(frozen=True)
class EndpointOptions:
    """The `options` of an [`EndpointExpert`].

    Args:
        api_key_env: Name of the environment variable that holds the key. Without it no key is sent to a `base_url`;
            Inference Providers get the Hugging Face token of this machine.
        concurrency: The most requests of [`~EndpointExpert.answer`] at a time, at most 100.
        timeout: Seconds that an answer may take; of a stream, its next piece.
        retries: How many times a request that failed for the moment is sent again.
        max_retry_after: Seconds that a server may ask to be left alone; if it asks for more, it is given up.
        provider: Of Inference Providers; by default, the first that has the model in the order of the user's account.
        extra_body: Further fields of each request, JSON values. They go before our own, such as `max_tokens` or
            `seed`; `None` (`null`) leaves a field out, for servers that refuse it.
    """

    api_key_env: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    max_retry_after: float = MAX_RETRY_AFTER
    provider: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ExpertSpec) -> "EndpointOptions":
        """Reads the options of a spec, and checks the fields that belong to an endpoint.

        Raises:
            ValueError: If something is missing, not known, or cannot be right; names the expert and the field.
        """

        def check(condition: bool, name: str, expected: str, value: Any):
            if not condition:
                raise ValueError(f"Expert {spec.name!r}: `{name}` must be {expected}, got {value!r}.")

        known = [each.name for each in fields(cls)]
        if unknown := sorted(str(name) for name in set(spec.options) - set(known)):
            raise ValueError(
                f"Expert {spec.name!r}: `options` has unknown keys {unknown}. An endpoint knows {known}; further "
                "fields of the request go into `extra_body`."
            )
        if not isinstance(spec.model, str) or not spec.model:
            raise ValueError(
                f"Expert {spec.name!r} needs `model`, the name by which the endpoint knows it, got {spec.model!r}."
            )
        if spec.base_url is not None:
            url = urlsplit(spec.base_url) if isinstance(spec.base_url, str) else None
            check(
                url is not None and url.scheme in ("http", "https") and bool(url.hostname),
                "base_url",
                'the address of a server, such as "http://localhost:8000/v1"',
                spec.base_url,
            )
        options = cls(**spec.options)
        if options.api_key_env is not None and not _is_variable(options.api_key_env):
            # The value is not repeated: it may be the key.
            raise ValueError(
                f"Expert {spec.name!r}: `options.api_key_env` must be the name of an environment variable, such as "
                '"MY_SERVER_KEY". Put the key itself into that variable.'
            )
        check(
            _is_integer(options.concurrency) and 1 <= options.concurrency <= MAX_CONCURRENCY,
            "options.concurrency",
            f"a whole number from 1 to {MAX_CONCURRENCY}",
            options.concurrency,
        )
        check(
            _is_number(options.timeout) and options.timeout > 0,
            "options.timeout",
            "a positive number of seconds",
            options.timeout,
        )
        check(
            _is_number(options.max_retry_after) and options.max_retry_after >= 0,
            "options.max_retry_after",
            "a number of seconds that is not negative",
            options.max_retry_after,
        )
        check(
            _is_integer(options.retries) and options.retries >= 0,
            "options.retries",
            "a whole number that is not negative",
            options.retries,
        )
        if options.provider is not None:
            check(
                isinstance(options.provider, str) and bool(options.provider),
                "options.provider",
                "the name of a provider",
                options.provider,
            )
            if spec.base_url is not None:
                raise ValueError(
                    f"Expert {spec.name!r} has both `base_url` and `options.provider`. Keep `base_url` for a server "
                    "of your choice, or `options.provider` for Hugging Face Inference Providers."
                )
        check(isinstance(options.extra_body, Mapping), "options.extra_body", "a dict", options.extra_body)
        if own := sorted(set(options.extra_body) & set(OWN_FIELDS)):
            raise ValueError(
                f"Expert {spec.name!r}: `options.extra_body` must not have {own}: they follow from the query and the "
                "spec."
            )
        return options


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value < math.inf


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_variable(value: Any) -> bool:
    looks_like_a_key = isinstance(value, str) and value.startswith("hf_")
    return isinstance(value, str) and value.isascii() and value.isidentifier() and not looks_like_a_key
