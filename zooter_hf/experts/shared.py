"""A causal language model in memory, shared by the experts that run on it: the base itself, and its LoRA adapters."""

import contextlib
import gc
import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors import safe_open

from zooter_hf.experts.adapter_files import WEIGHTS_FILE, AdapterFiles
from zooter_hf.experts.base import ExpertError
from zooter_hf.experts.loading import LOADING_OPTIONS, check_libraries, load_model, load_tokenizer


# The name that PEFT has for rows of a batch that go to no adapter.
BASE = "__base__"


class SharedModel:
    """A model and its tokenizer, loaded once for every expert that needs them; see [`acquire`].

    Args:
        expert: Name of the expert that loads it, for errors.
        source: Folder or Hub id.
        options: How to load it; see `LOADING_OPTIONS`.
    """

    def __init__(self, expert: str, source: str, options: Mapping[str, Any]):
        check_libraries(expert, options)
        self.source = source
        self.options = dict(options)
        self.tokenizer = load_tokenizer(expert, source, options)
        self.model = load_model(expert, source, options)
        self.users = 0
        self.adapters: dict[str, AdapterFiles] = {}
        self._peft = None
        self._named = 0
        # Which adapter is active is a state of the model: one generation at a time.
        self._lock = threading.RLock()
        #: Held while a text is made into tokens: how that is done is a state of the tokenizer.
        self.tokenizer_lock = threading.Lock()

    @property
    def mixes(self) -> bool:
        """Whether a batch can hold rows of different adapters."""
        return not any(files.replaces_modules for files in self.adapters.values())

    def add_adapter(self, expert: str, files: AdapterFiles) -> str:
        """Puts a LoRA adapter beside those that are there.

        Args:
            expert: Name of the expert, for errors.
            files: The adapter.

        Returns:
            The name that the adapter has here.

        Raises:
            ExpertError: If the adapter does not fit the model.
        """
        from peft import PeftConfig

        with self._lock:
            self._named += 1
            name = f"adapter_{self._named}"  # names of experts may hold dots, which names of modules may not
            config = PeftConfig.from_pretrained(str(files.folder))
            config.inference_mode = True
            try:
                self._check_base_weights(files)
                self._put_in(name, config, files)
            except (ValueError, TypeError, RuntimeError, KeyError) as error:
                if self._peft is not None:
                    self._peft.peft_config[name] = config  # PEFT forgets it, but not what it has put in so far
                self._remove(name)
                reason = " ".join(str(error).strip().splitlines()[:3])
                raise ExpertError(
                    f"Expert {expert!r}: the adapter {str(files.folder)!r} does not fit the base {self.source!r} or "
                    f"the adapters that are on it. It was trained on {config.base_model_name_or_path!r}; name that in "
                    f"the option `base_model`. {reason}"
                ) from error
            self.adapters[name] = files
        return name

    def _put_in(self, name: str, config: Any, files: AdapterFiles):
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a name that transformers gives up
            if self._peft is None:
                self._peft = PeftModel(self.model, config, name, autocast_adapter_dtype=False)
            else:
                self._peft.add_adapter(name, config, autocast_adapter_dtype=False)
            result = self._peft.load_adapter(
                str(files.folder),
                name,
                torch_device="cpu",
                autocast_adapter_dtype=False,
                key_mapping=getattr(self.model, "_checkpoint_conversion_mapping", None),
            )
        unexpected = [key for key in result.unexpected_keys if key not in files.base_weights]
        if wrong := [*result.missing_keys, *unexpected]:
            raise ValueError(f"{len(wrong)} weights have no counterpart, such as {wrong[0]}.")

    def _check_base_weights(self, files: AdapterFiles):
        """Refuses weights that differ from those of the base: loading them would change it for all."""
        if not files.base_weights:
            return
        with safe_open(files.folder / WEIGHTS_FILE, framework="pt") as weights:
            for key in files.base_weights:
                saved, own = weights.get_tensor(key), self._weight_of_base(key)
                if own is None or own.shape != saved.shape or not torch.equal(saved.to(own), own):
                    raise ValueError(
                        f"It brings weights of its base that differ from those of this one, such as {key}. Save it "
                        "with `save_embedding_layers=False` if it does not need them."
                    )

    def _weight_of_base(self, key: str) -> torch.Tensor | None:
        """Finds what PEFT saved under a key, within whatever other adapters have wrapped it in."""
        path, _, name = key.removeprefix("base_model.model.").replace(".base_layer.", ".").rpartition(".")
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            return None
        while inner := getattr(module, "original_module", None) or getattr(module, "base_layer", None):
            module = inner
        weight = getattr(module, name, None)
        return weight.data if isinstance(weight, torch.nn.Parameter) else None

    def remove_adapter(self, name: str):
        """Takes an adapter away again."""
        with self._lock:
            self.adapters.pop(name, None)
            self._remove(name)

    def _remove(self, name: str):
        if self._peft is not None and name in self._peft.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another adapter being active now: one is chosen for every batch
                self._peft.delete_adapter(name)
        elif self._peft is None and hasattr(self.model, "peft_config"):
            del self.model.peft_config  # a first adapter that could not even be put in

    @contextlib.contextmanager
    def using(self, adapters: Sequence[str | None]) -> Iterator[None]:
        """Lets every row of a batch go through its adapter; `None` is the base alone. Others wait meanwhile."""
        with self._lock:
            kinds = set(adapters)
            if not self.adapters:
                yield
            elif kinds == {None}:
                self._peft.base_model.disable_adapter_layers()
                try:
                    yield
                finally:
                    self._peft.base_model.enable_adapter_layers()
            elif len(kinds) == 1:
                self._peft.set_adapter(adapters[0], inference_mode=True)
                yield
            else:
                yield from self._mixed([name or BASE for name in adapters])

    def _mixed(self, names: list[str]) -> Iterator[None]:
        # PEFT does the same for `generate(adapter_names=...)`, but takes its hooks away only if all goes well, which a
        # batch that is too large for the memory does not.
        failure = None
        with self._peft.base_model._enable_peft_forward_hooks(adapter_names=names):
            try:
                yield
            except BaseException as error:
                failure = error
        if failure is not None:
            raise failure


_held: dict[str, SharedModel] = {}
_lock = threading.RLock()


def acquire(expert: str, source: str, options: Mapping[str, Any], *, for_adapter: bool = False) -> SharedModel:
    """Returns a model, loaded if it is not in memory yet; to be given back with [`release`].

    Args:
        expert: Name of the expert, for errors.
        source: Folder or Hub id, from [`find_folder`].
        options: The options of the expert; those that do not decide how the model is loaded are passed over.
        for_adapter: Whether an adapter is to be put on it. All adapters of a base share it.

    Raises:
        ExpertError: If the model cannot be loaded; or if it is in memory for other adapters, under other options.
        ImportError: If a library is not installed that it needs.
    """
    options = {name: options[name] for name in LOADING_OPTIONS if name in options}
    key = shared_key(source, options)
    with _lock:
        if for_adapter:
            for other in _held.values():
                if other.source == source and other.adapters and shared_key(source, other.options) != key:
                    raise ExpertError(
                        f"Expert {expert!r}: its base {source!r} is in memory for another adapter with the options "
                        f"{other.options}, but this one asks for {options}. Experts that share a base must agree."
                    )
        if key not in _held:
            _held[key] = SharedModel(expert, source, options)
        _held[key].users += 1
        return _held[key]


def release(shared: SharedModel):
    """Gives a model back; the last user's frees the memory."""
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        _held.pop(shared_key(shared.source, shared.options), None)
        shared.model = shared.tokenizer = shared._peft = None
    gc.collect()  # modules refer to each other in circles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def shared_key(source: str, options: Mapping[str, Any]) -> str:
    """Returns what experts have in common that share a model: its source, and the options that decide its loading."""
    options = {name: options[name] for name in LOADING_OPTIONS if name in options}
    return json.dumps([source, options], sort_keys=True, default=str)
