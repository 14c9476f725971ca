"""Pretrained weights: where they come from, how they fit other bands, and what values they expect."""
