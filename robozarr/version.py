"""The version; this module imports nothing, so that importing it is cheap."""

__version__ = "0.2.0"
