"""Records from text by a model that writes them: forms of the target, reading, scoring, demonstrations."""
