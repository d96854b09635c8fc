"""The decoding settings that a pretrained model is shipped with."""

from paperflows.components.decoding.configurations import GREEDY, Configuration
from paperflows.components.models.pretrained import model_location


def shipped_configuration(model: str) -> Configuration:
    """Settings of the `generation_config.json` of a folder or Hugging Face id.

    Greedy where it says not to sample; the library's defaults for sampling where it is silent, or there is none.
    """
    from transformers import GenerationConfig

    try:
        shipped = GenerationConfig.from_pretrained(model_location(model)).to_diff_dict()
    except OSError:  # no such file: transformers generates by its own defaults
        shipped = {}
    if shipped.get("do_sample") is False:
        return GREEDY
    d = Configuration()
    return Configuration(
        temperature=float(shipped.get("temperature", d.temperature)),
        top_p=float(shipped.get("top_p", d.top_p)),
        top_k=int(shipped.get("top_k", d.top_k)),
        repetition_penalty=float(shipped.get("repetition_penalty", d.repetition_penalty)),
    )
