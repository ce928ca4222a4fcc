"""The OpenAI chat API, through the client of huggingface_hub."""

from huggingface_hub import AsyncInferenceClient, get_async_session


MAX_ERROR_BYTES = 65_536


class Refusal(Exception):
    """An answer of a server with an error status.

    Args:
        status: The HTTP status.
        text: The body, as much as was read.
        retry_after: The header of that name.
    """

    def __init__(self, status: int, text: str, retry_after: str | None):
        super().__init__(status)
        self.status = status
        self.text = text
        self.retry_after = retry_after


class ChatClient(AsyncInferenceClient):
    """Sends its requests over a session that outlives it. Leaving its context closes a stream that is still open.

    Args:
        session: Of [`open_session`].
        **kwargs: See [`~huggingface_hub.AsyncInferenceClient`].
    """

    def __init__(self, session, **kwargs):
        super().__init__(**kwargs)
        self._session = session

    async def _get_async_client(self):
        return self._session


def open_session(to_hub: bool):
    """Opens the HTTP client of huggingface_hub, as far as the user has set it up (proxies, certificates).

    Args:
        to_hub: Whether it is Hugging Face that is asked, and not a server of the user's choice.

    Returns:
        An HTTP client that raises [`Refusal`] for what a server answers with an error status.
    """
    session = get_async_session()
    hooks = session.event_hooks
    if not to_hub:
        # In offline mode, huggingface_hub's own hook refuses every request, also those to a server in the next room.
        hooks["request"] = [hook for hook in hooks["request"] if not hook.__module__.startswith("huggingface_hub.")]
    # Ahead of its own check, which takes every error for one about repositories.
    hooks["response"] = [_refuse, *hooks["response"]]
    session.event_hooks = hooks
    return session


async def _refuse(response):
    if response.status_code < 400:
        return
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_ERROR_BYTES:
            break
    raise Refusal(response.status_code, body.decode(errors="replace"), response.headers.get("Retry-After"))
