"""Transformers with sktime's interface, for its pipelines.

Above: nothing. Below: `statespace.filtering` and `statespace.lti`, which do the work.
"""

__all__: list[str] = []
