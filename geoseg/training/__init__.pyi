from .command import FitCLI as FitCLI
from .run import FitResult as FitResult
from .run import opened_data as opened_data
from .run import run_fit as run_fit
