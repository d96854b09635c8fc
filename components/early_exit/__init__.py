"""Encoders that stop early: by sentence, by token, by hash; what that saves, counted and measured."""
