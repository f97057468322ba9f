"""dltool: a toolbox of deep-learning experiments for the command line."""

__version__ = "0.1.0"
API_LEVEL = 1
