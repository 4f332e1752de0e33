"""Where pickles of earlier versions look for the map of a model, which stands in `ssntk.models.maps`."""

from ssntk.models.maps import EulerMap as EulerMap
