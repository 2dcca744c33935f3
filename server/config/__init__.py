"""One frozen configuration from a file, the environment and flags; every option is documented."""

from server.config.errors import ConfigError
from server.config.load import load
from server.config.options import Config

__all__ = ["Config", "ConfigError", "load"]
