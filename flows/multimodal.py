"""Sections of parameters of the flow on media: what is read, how it is tokenized, trained, written and synthesised."""

from typing import Literal

from pydantic import Field

from paperflows.flows.params import Section
from paperflows.tasks.annotators import Annotator


class Named(Section):
    """A dataset."""

    name: str = Field(description="Of the dataset in the source")
    builtin: bool = Field(False, description="Read from the built-in source whatever the source of the run")


class Media(Section):
    """Datasets by modality."""

    picture: Named = Field(description="Small pictures of one thing each, with a word")
    speech: Named = Field(description="Recordings of the same words")
    music: Named = Field(description="Tunes in ABC notation")
    drawing: Named | None = Field(None, description="Drawings of 32 x 32 with names, groups and tones; empty for none")
    text: str = Field(description="Plain texts that the language model starts from")

    def named(self) -> dict[str, Named]:
        """Modality -> dataset, of those that are there."""
        every = {"picture": self.picture, "speech": self.speech, "music": self.music, "drawing": self.drawing}
        return {modality: found for modality, found in every.items() if found}


class PatchBook(Section):
    """Picture tokenizer."""

    patch: int = Field(ge=1, description="Side of a patch, in pixels")
    codes: int = Field(ge=2, description="Patches in the code book")
    steps: int = Field(ge=1, description="Updates of the code book")


class FrameBook(Section):
    """Speech tokenizer."""

    codes: int = Field(ge=2, description="Log-mel frames in the code book")
    steps: int = Field(ge=1, description="Updates of the code book")


class DrawingBook(Section):
    """Tokenizer of drawings, a VQ-VAE."""

    width: int = Field(ge=4, description="Channels of the first layer")
    codes: int = Field(ge=2, description="Codes of a level")
    levels: int = Field(ge=2, description="Residual levels a cell")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Drawings a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Tokenizers(Section):
    """What turns media into ids; music's ids are events and are not learnt."""

    picture: PatchBook
    speech: FrameBook
    drawing: DrawingBook


class Sizes(Section):
    """Shape of the tiny language model."""

    vocabulary: int = Field(ge=300, description="Text tokens, bytes included")
    width: int = Field(ge=8, description="Of the residual stream")
    layers: int = Field(ge=1, description="Decoder layers")
    heads: int = Field(ge=1, description="Attention heads")
    hidden: int = Field(ge=8, description="Width of the feed-forward layers")
    positions: int = Field(ge=64, description="Longest sequence")


class Plain(Section):
    """Training of the language model before any medium."""

    texts: int = Field(ge=1, description="Texts at most")
    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Texts a step")
    learning_rate: float = Field(gt=0, description="Highest")


class Alignment(Section):
    """Stage 1, the same for every model."""

    steps: int = Field(ge=1, description="For each direction: a model of six directions takes six times as many")
    batch_size: int = Field(ge=1, description="Pairs a step")
    learning_rate: float = Field(gt=0, description="Highest")
    row: int = Field(ge=64, description="Tokens of a packed row; longer pairs are left out")
    weighting: Literal["paper", "mean", "sqrt"] = Field(
        description="Loss of an answer: every token 1 (paper), 1 in all (mean), or the root of its length (sqrt)"
    )
    prompt: float = Field(ge=0, description="Weight of a prompt beside an answer; paper takes 1")
    dropped: float = Field(ge=0, lt=1, description="Share of text conditions left out, for guidance")


class Tuning(Section):
    """Stage 2."""

    steps: int = Field(ge=1, description="Optimiser steps")
    batch_size: int = Field(ge=1, description="Conversations a step")
    learning_rate: float = Field(gt=0, description="Highest")
    row: int = Field(ge=64, description="Tokens of a packed row; longer conversations are left out")
    weighting: Literal["paper", "mean", "sqrt"] = Field(description="As in stage 1, of the assistant's messages")


class Synthesis(Section):
    """The pipeline of conversations."""

    writer: Annotator
    topics: int = Field(ge=5, description="Specific topics at most; a fifth is held out for the evaluation")
    scenarios: int = Field(ge=1, description="Conversations planned")
    keep: int = Field(ge=1, description="Conversations kept at most")
    most_words: int = Field(ge=10, description="Of a conversation")
    threshold: float = Field(gt=0, le=1, description="Jaccard similarity of word trigrams of a near-duplicate")
    tries: int = Field(ge=1, description="Of an element until the judge recognises it")


class Decoding(Section):
    """How one modality is written."""

    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_k: int = Field(0, ge=0, description="Likeliest ids drawn from; 0 takes all")
    repetition_penalty: float = Field(1.0, gt=0, description="Of ids that the block has; speech repeats rightly")
    longest: int = Field(
        ge=1, description="Ids of a block at most; pictures and drawings have as many as their tokenizer gives"
    )
    guidance: float = Field(0.0, ge=0, description="g of logits + g (conditional - unconditional)")
