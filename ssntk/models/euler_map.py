"""Pickles of earlier versions look for the map of a model here. It is defined in `ssntk.models.maps`."""

from ssntk.models.maps import EulerMap as EulerMap
