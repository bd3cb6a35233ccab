"""Every error and warning of the package: one base class each, one line a kind."""


class LimKerasError(Exception):
    """Base of every error that this package raises on bad input; the command line prints it as one line."""


class DataError(LimKerasError):
    """A tile, mask, manifest or scene cannot be used as it is."""


class LeakError(DataError):
    """A test tile would enter training, or one piece of ground would stand on both sides of a split."""


class ConfigError(LimKerasError):
    """A configuration key is unknown or its value is not valid."""


class ModelError(LimKerasError):
    """A model cannot be built as asked, or weights do not fit it."""


class TrainingError(LimKerasError):
    """A run cannot start or continue."""


class BundleError(LimKerasError):
    """An exported bundle is incomplete, damaged or of another make than its caller expects."""


class ServerError(LimKerasError):
    """A model server is away, refuses a request, or answers with something else than a prediction."""


class LimKerasWarning(UserWarning):
    """Base of every warning that this package issues."""


class DomainWarning(LimKerasWarning):
    """The input is far from what the model was trained on (ground sample distance, value range)."""
