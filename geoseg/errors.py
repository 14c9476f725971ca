"""The errors a user can mend: one line each, exit code 2 from the command line.

Every message says what was given, what is needed and what would work. Each leaf also inherits the builtin error that a
stranger to this package would catch.
"""


class GeosegError(Exception):
    """Base of every error that geoseg raises on purpose."""


class InputError(GeosegError, ValueError):
    """An option, a value or a combination of them makes no sense."""


class MissingInputError(GeosegError, FileNotFoundError):
    """A file, a folder or an address is not there."""


class ReadError(GeosegError, OSError):
    """A file is there but cannot be read."""


class GridError(GeosegError, ValueError):
    """A raster's place on the ground is missing or cannot be used."""


class BandError(GeosegError, ValueError):
    """The bands that are there are not the bands that are needed."""


class LegendError(GeosegError, ValueError):
    """Classes do not fit: unknown code, two classes with one id, two different legends."""


class ModelFileError(GeosegError, ValueError):
    """A file is no geoseg model, or not one that this version can build."""


class OutputError(GeosegError, OSError):
    """An output cannot be written."""


class OutputExistsError(GeosegError, FileExistsError):
    """An output exists and was not to be overwritten."""


class WorkerError(GeosegError, RuntimeError):
    """Processes that do the work have died, or cannot do it."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end, as a cluster's scheduler asks it."""
