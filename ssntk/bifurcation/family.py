"""Pickles of earlier versions look for families here. They are defined in `ssntk.models.family`."""

from ssntk.models.family import Family as Family
