"""HDF5 → store: scan, plan, init, write, stats, finalise, and ``verify``; never imports ``loader`` or torch."""

from robozarr.convert.run import ConvertReport, convert
from robozarr.convert.verification import VerifyReport, verify

__all__ = ["ConvertReport", "VerifyReport", "convert", "verify"]
