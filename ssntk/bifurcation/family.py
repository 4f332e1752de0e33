"""Where pickles of earlier versions look for families, which stand in `ssntk.models.family`."""

from ssntk.models.family import Family as Family
