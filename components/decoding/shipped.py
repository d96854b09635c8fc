"""The decoding settings that a pretrained model is shipped with."""

from pathlib import Path

from paperflows.components.decoding.configurations import GREEDY, Configuration
from paperflows.components.errors import InputError, ServiceError
from paperflows.components.models.pretrained import model_location

FILE = "generation_config.json"


def shipped_configuration(model: str) -> Configuration:
    """Settings of the `generation_config.json` of a folder or Hugging Face id.

    Greedy where it says not to sample; the library's defaults for sampling where it is silent, or there is none.

    Raises:
        InputError: the file cannot be read.
        ServiceError: the hub does not say whether there is one.
    """
    from transformers import GenerationConfig

    location = model_location(model)
    if not _is_there(model, location):
        return Configuration()
    try:
        shipped = GenerationConfig.from_pretrained(location).to_diff_dict()
    except OSError as error:
        raise InputError(f"model {model!r}: {str(error).splitlines()[0]}") from error
    if shipped.get("do_sample") is False:
        return GREEDY
    d = Configuration()
    return Configuration(
        temperature=float(shipped.get("temperature", d.temperature)),
        top_p=float(shipped.get("top_p", d.top_p)),
        top_k=int(shipped.get("top_k", d.top_k)),
        repetition_penalty=float(shipped.get("repetition_penalty", d.repetition_penalty)),
    )


def _is_there(model: str, location: str) -> bool:
    from huggingface_hub import file_exists, try_to_load_from_cache

    if Path(location).is_dir():
        return (Path(location) / FILE).is_file()
    if isinstance(try_to_load_from_cache(location, FILE), str):
        return True
    try:
        return file_exists(location, FILE)
    except Exception as error:  # of the hub, or of the HTTP library that it happens to use
        raise ServiceError(f"model {model!r}: the hub does not say whether it has a {FILE}: {error}") from error
