"""Errors and warnings of the package, and a part of their messages."""


def as_argument(argument: str) -> str:
    """Return " as `argument`" for the advice of a message, or "" if no argument gives the value."""
    return f" as `{argument}`" if argument else ""


class LimKerasError(Exception):
    """Base of all errors on bad input; the command line prints them as one line."""


class DataError(LimKerasError):
    """A tile, mask, manifest or scene cannot be used as it is."""


class LeakError(DataError):
    """A test tile would enter training, or overlapping tiles would be on both sides of a split."""


class ConfigError(LimKerasError):
    """An argument or a configuration value is not valid, or a configuration key is unknown."""


class ModelError(LimKerasError):
    """A model cannot be built, or weights do not fit it."""


class TrainingError(LimKerasError):
    """A run cannot start or continue."""


class BundleError(LimKerasError):
    """An exported bundle is incomplete, damaged or does not fit its caller."""


class ServerError(LimKerasError):
    """A model server is unreachable, refuses a request, or answers with something other than a prediction."""


class ClusterError(LimKerasError):
    """A Ray cluster is unreachable, does not fit its caller, or could not do a job."""


class LimKerasWarning(UserWarning):
    """Base of all warnings."""


class DomainWarning(LimKerasWarning):
    """The scene differs from the training images, for example in ground sample distance, values or features."""
